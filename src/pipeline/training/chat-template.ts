import { readText } from "../../base/index.js";
import type { Model } from "../../models/index.js";

/**
 * Turns as lines, so that no token reaches from the template into an answer, each answer closed by the tokenizer's own end token, so that
 * it needs no token that a base model lacks. Calls of tools are JSON.
 */
const plain = `{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}Answer:
{{ message['content'] }}{% if message.tool_calls %}{% for call in message.tool_calls %}{{ call['function'] | tojson }}{% endfor %}{% endif %}{{ eos_token }}
{% elif message['role'] == 'system' %}{{ message['content'] }}
{% elif message['role'] == 'tool' %}Result: {{ message['content'] }}
{% else %}Question: {{ message['content'] }}
{% endif %}{% endfor %}{% if add_generation_prompt %}Answer:
{% endif %}`;

/**
 * The model with another chat template, which is written beside whatever is made of it.
 * @param template `plain`, or a Jinja file
 */
export async function withChatTemplate(model: Model, template: string | undefined): Promise<Model> {
  if (template === undefined) return model;
  const chatTemplate = template === "plain" ? plain : await readText(template);
  return { ...model, sidecars: { ...model.sidecars, chatTemplate } };
}

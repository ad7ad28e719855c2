/** @module Chat templates: a conversation becomes the text that a chat model was trained on. */
import { Template } from "@huggingface/jinja";
import { EspalierError, messageOf } from "../base/index.js";

export interface ChatMessage {
  /** `system`, `user`, `assistant`, `tool`, or whatever the template knows. */
  role: string;
  content: string;
}

export interface RenderOptions {
  /** Ends with the head of the answer, so that the model writes the answer next. Defaults to true. */
  addGenerationPrompt?: boolean;
  /** What the template may ask for besides, such as `enable_thinking`. */
  variables?: Readonly<Record<string, unknown>>;
}

export interface ChatTemplate {
  render(messages: readonly ChatMessage[], options?: RenderOptions): string;
}

export interface ChatTemplateSource {
  /** Jinja text, or the list of named templates that some configurations hold. */
  template: unknown;
  /** Text of the start token, which templates write themselves. */
  bosToken?: string;
  eosToken?: string;
}

/**
 * A chat template ready to use.
 *
 * Rendered text holds its start token where the template writes one: encode it with `addSpecial: false`.
 *
 * @param where The model, for messages.
 */
export function createChatTemplate(
  { template, bosToken = "", eosToken = "" }: ChatTemplateSource,
  where = "model",
): ChatTemplate {
  const parsed = parseTemplate(templateText(template, where), where);
  return {
    render(messages, { addGenerationPrompt = true, variables = {} } = {}) {
      try {
        return parsed.render({
          ...variables,
          messages,
          add_generation_prompt: addGenerationPrompt,
          bos_token: bosToken,
          eos_token: eosToken,
        });
      } catch (cause) {
        throw new EspalierError({
          where: `${where}: chat template`,
          expected: `a conversation that the template accepts`,
          found: messageOf(cause),
          fix: "templates may refuse roles, their order, or a missing first turn; see the model's card",
          exitCode: 2,
          cause,
        });
      }
    },
  };
}

function parseTemplate(text: string, where: string): Template {
  try {
    return new Template(text);
  } catch (cause) {
    throw new EspalierError({
      where: `${where}: chat template`,
      expected: "a Jinja template",
      found: messageOf(cause),
      fix: "fetch the model's files again, or prompt it without a chat",
      cause,
    });
  }
}

/** The text of a `chat_template` value: itself, or the entry named `default`. */
function templateText(template: unknown, where: string): string {
  if (typeof template === "string" && template.trim() !== "") return template;
  const named = Array.isArray(template) ? template.find((entry) => entry?.name === "default")?.template : undefined;
  if (typeof named === "string") return named;
  throw new EspalierError({
    where: `${where}: chat template`,
    expected: "a chat template in tokenizer_config.json, chat_template.jinja or the GGUF header",
    found: "none",
    fix: "this is a base model: give it plain text to continue (`--prompt` without `--chat`)",
    exitCode: 2,
  });
}

// Conversations as tokens, with what is learnt marked, and packed into rows: npx tsx examples/pack-conversations.ts
import {
  bundledChatPath,
  limitLength,
  packSamples,
  readConversations,
  renderBranches,
  renderConversation,
  showMask,
} from "espalier/data";
import { openModel } from "espalier/models";
import { createChatTemplate, loadTokenizer } from "espalier/tokenizer";

const model = await openModel("models/stories260K");
const tokenizer = loadTokenizer(model.sidecars.tokenizer);
// The bundled model has no chat template; one that ends turns with its end token will do.
const template = createChatTemplate({
  template:
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}" +
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}" +
    "{% if add_generation_prompt %}assistant: {% endif %}",
  bosToken: "<s>",
  eosToken: "</s>",
});

const conversations = await readConversations(bundledChatPath("valid"));
const samples = conversations.map(({ messages, where }) =>
  renderConversation(template, tokenizer, messages, { where }),
);
console.log(showMask(tokenizer, samples[0]!, { style: "ansi" }));

const onEvent = (event: { event: string; message?: string }) => console.log(event.message);
const fitting = limitLength(samples, { length: 512, policy: "drop", where: "bundled chats", onEvent });
const { batches, fill } = packSamples(fitting.samples, { batch: 4, length: 512 });
console.log(
  `${fitting.samples.length} samples in ${batches.length} batches of 4 x 512, ${(100 * fill).toFixed(1)} % filled`,
);

const { prompt, branches } = renderBranches(template, tokenizer, [{ role: "user", content: "2 + 2?" }], ["4", "Five."]);
console.log(`a prompt of ${prompt.length} tokens, answers of ${branches.map(({ ids }) => ids.length).join(" and ")}`);
await model.close();

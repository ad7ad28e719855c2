/** @module A small byte-level tokenizer and chat templates of the common kinds. For tests only. */
import {
  type ChatTemplate,
  createChatTemplate,
  createHuggingFaceTokenizer,
  type Tokenizer,
} from "../tokenizer/index.js";

const controls = ["<|im_start|>", "<|im_end|>", "<bos>", "<|eot|>"];

/**
 * One token a byte, four control tokens after them, and a few merges: two line breaks are one token, so that a token can
 * reach from the template into a message.
 */
export function createByteTokenizer({ bos = false } = {}): Tokenizer {
  const isPrintable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  let next = 256;
  const alphabet = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : next++));
  const merges = ["Ċ Ċ", "h e", "he l", "l o"];
  const tokens = [...alphabet, ...merges.map((pair) => pair.replace(" ", ""))];
  const added = controls.map((content, i) => ({ id: tokens.length + i, content, special: true }));
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  return createHuggingFaceTokenizer({
    tokenizer: {
      version: "1.0",
      added_tokens: added.map((token) => ({
        ...token,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
      })),
      normalizer: null,
      pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      post_processor: null,
      decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
      model: { type: "BPE", dropout: null, unk_token: null, fuse_unk: false, byte_fallback: false, vocab, merges },
    },
    config: { bos_token: "<bos>", eos_token: "<|im_end|>", add_bos_token: bos },
  });
}

export const templates = {
  chatMl: `{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% if m.tool_calls %}{% for c in m.tool_calls %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`,
  /** Writes today's date, and its own start token. */
  dated: `{{ '<bos>' }}{{ strftime_now('%d %b %Y') }}/{{ date_string }}
{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}<|eot|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}`,
  /** Takes the thought out of every answer, as Llama-Nemotron's does. */
  thoughtless: `{% for m in messages %}{% if m.role == 'assistant' and '</think>' in m.content %}{% set text = m.content.split('</think>')[-1].lstrip() %}{% else %}{% set text = m.content %}{% endif %}<|im_start|>{{ m.role }}

{{ text | trim }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant

{% endif %}`,
  /** Opens the thought itself, as DeepSeek-R1's does. */
  opening: `{% for m in messages %}[{{ m.role }}]{% if '</think>' in m.content %}{{ m.content.split('</think>')[-1] | trim }}{% else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant]<think>
{% endif %}`,
  /** Ends turns with a line break alone. */
  endless: `{% for m in messages %}{{ m.role }}: {{ m.content }}
{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}`,
} as const;

export function testTemplate(name: keyof typeof templates): ChatTemplate {
  return createChatTemplate({ template: templates[name], bosToken: "<bos>", eosToken: "<|im_end|>" }, `test/${name}`);
}

import { expect, test } from "vitest";
import { renderModelfile } from "./modelfile.js";

test("a model without chat template is prompted as it is", () => {
  expect(renderModelfile({ gguf: "x.gguf", contextLength: 512 })).toBe(
    '# Ollama: ollama create NAME -f THIS_FILE\nFROM ./x.gguf\nTEMPLATE """{{ .Prompt }}"""\nPARAMETER num_ctx 512\n',
  );
});

test("a known chat template, sampling settings and the licence", () => {
  const text = renderModelfile({
    gguf: "x.gguf",
    contextLength: 4096,
    chatTemplate: "{% for m in messages %}<|im_start|>...",
    stops: ["<|im_end|>"],
    generationConfig: { temperature: 0.6, top_p: 0.95, do_sample: true, top_k: null },
    licences: ['Do """as you like"""\n'],
  });
  expect(text.split("\n")).toEqual([
    "# Ollama: ollama create NAME -f THIS_FILE",
    "FROM ./x.gguf",
    'TEMPLATE """{{- range .Messages }}<|im_start|>{{ .Role }}',
    "{{ .Content }}<|im_end|>",
    "{{ end }}<|im_start|>assistant",
    '"""',
    "PARAMETER num_ctx 4096",
    'PARAMETER stop "<|im_end|>"',
    "PARAMETER temperature 0.6",
    "PARAMETER top_p 0.95",
    "LICENSE \"\"\"Do '''as you like'''",
    '"""',
    "",
  ]);
});

test("an unknown chat template is left to Ollama, and the file says so", () => {
  const text = renderModelfile({ gguf: "x.gguf", contextLength: 1, chatTemplate: "{{ strange }}" });
  expect(text).toContain("# No Go template is known");
  expect(text).not.toContain("TEMPLATE ");
});

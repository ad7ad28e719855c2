import { describe, expect, test } from "vitest";
import { parseModelName } from "./names.js";

const hub = (repository: string, more: object = {}) => ({ kind: "hub", repository, revision: "main", ...more });

describe("names of models", () => {
  test.each([
    ["hf:HuggingFaceTB/SmolLM2-135M-Instruct", hub("HuggingFaceTB/SmolLM2-135M-Instruct")],
    ["HuggingFaceTB/SmolLM2-135M", hub("HuggingFaceTB/SmolLM2-135M")],
    ["hf://a/b:q4_k_m", hub("a/b", { quant: "Q4_K_M" })],
    ["a/b@v1.0", hub("a/b", { revision: "v1.0" })],
    ["a/b@refs/pr/3:Q8_0", hub("a/b", { revision: "refs/pr/3", quant: "Q8_0" })],
    ["a/b/sub/file.gguf", hub("a/b", { file: "sub/file.gguf" })],
    ["https://huggingface.co/a/b", hub("a/b")],
    ["https://huggingface.co/a/b/blob/main/x%20y.gguf", hub("a/b", { file: "x y.gguf" })],
    ["https://hf.co/a/b/resolve/v2/x.gguf?download=true", hub("a/b", { revision: "v2", file: "x.gguf" })],
  ])("%s", (text, expected) => {
    expect(parseModelName(text)).toEqual(expected);
  });

  test("another address is a file by itself, and a path that exists is a path", () => {
    expect(parseModelName("https://example.org/m.gguf")).toMatchObject({ kind: "url" });
    expect(parseModelName("models/stories260K", { exists: true })).toEqual({
      kind: "path",
      path: "models/stories260K",
    });
    expect(parseModelName("hf:models/stories260K", { exists: true })).toMatchObject({ kind: "hub" });
  });

  test.each(["llama", "a/b/", "../x", "a/b:", "a//b", "-a/b"])("%j is refused with an example", (text) => {
    expect(() => parseModelName(text)).toThrow(/for example hf:bartowski/);
  });
});

import { describe, expect, test } from "vitest";
import { chooseFiles } from "./choose.js";
import type { HubName } from "./names.js";

const repository = (...paths: string[]) => paths.map((path) => ({ path }));
const name = (more: Partial<HubName> = {}): HubName => ({ kind: "hub", repository: "a/b", revision: "main", ...more });
const paths = (...args: Parameters<typeof chooseFiles>) => chooseFiles(...args).map(({ path }) => path);

const whole = repository(
  ".gitattributes",
  "LICENSE.txt",
  "README.md",
  "config.json",
  "model-00001-of-00002.safetensors",
  "model-00002-of-00002.safetensors",
  "model.safetensors.index.json",
  "onnx/model.onnx",
  "original/consolidated.00.pth",
  "pytorch_model.bin",
  "tokenizer.json",
  "tokenizer_config.json",
);
const ggufs = repository(
  "README.md",
  "m-Q4_K_M.gguf",
  "m-Q8_0-00001-of-00002.gguf",
  "m-Q8_0-00002-of-00002.gguf",
  "m.f16.gguf",
);

describe("files of a repository", () => {
  test("a whole one: safetensors and what belongs to them, not the other copies of the weights", () => {
    expect(paths(whole, name())).toEqual([
      "LICENSE.txt",
      "README.md",
      "config.json",
      "model.safetensors.index.json",
      "tokenizer.json",
      "tokenizer_config.json",
      "model-00001-of-00002.safetensors",
      "model-00002-of-00002.safetensors",
    ]);
  });

  test("a type, with all its parts; one file by its name", () => {
    expect(paths(ggufs, name({ quant: "Q4_K_M" }))).toEqual(["m-Q4_K_M.gguf"]);
    expect(paths(ggufs, name({ quant: "Q8_0" }))).toHaveLength(2);
    expect(paths(ggufs, name({ quant: "F16" }))).toEqual(["m.f16.gguf"]);
    expect(paths(whole, name({ file: "onnx/model.onnx" }))).toEqual(["onnx/model.onnx"]);
    expect(paths(repository("only.gguf"), name())).toEqual(["only.gguf"]);
  });

  test("what is missing is told with what there is", () => {
    expect(() => chooseFiles(ggufs, name())).toThrow(/4 GGUFs: Q4_K_M, Q8_0, F16; .*hf:a\/b:Q4_K_M/s);
    expect(() => chooseFiles(ggufs, name({ quant: "Q5_K_M" }))).toThrow(/Q4_K_M, Q8_0, F16/);
    expect(() => chooseFiles(whole, name({ quant: "Q5_K_M" }))).toThrow(/no GGUF at all/);
    expect(() => chooseFiles(whole, name({ file: "x" }))).toThrow(/LICENSE.txt/);
    expect(() => chooseFiles(repository("weights.bin"), name())).toThrow(/no model that can be loaded here/);
  });
});

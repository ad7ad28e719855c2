import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { repositoryPath } from "../base/testing.js";
import { parseHubConfig } from "./hub-config.js";

const plain = JSON.parse(readFileSync(repositoryPath("models/stories260K/config.json"), "utf8"));

describe("parseHubConfig", () => {
  test("gives the fields under their own names, with the format's defaults", () => {
    const { config, notices } = parseHubConfig({ ...plain, mlp_bias: undefined }, "config.json");
    expect(config).toMatchObject({ hidden_size: 64, num_key_value_heads: 4, rms_norm_eps: 1e-5, mlp_bias: false });
    expect(notices).toEqual([]);
  });

  test("lists all problems at once, with their fields", () => {
    const bad = { ...plain, hidden_size: -64, rms_norm_eps: "small", vocab_size: 1e12, num_hidden_layers: undefined };
    const message = captured(() => parseHubConfig(bad, "config.json"));
    expect(message).toContain("config.json: 4 problems");
    for (const field of ["hidden_size", "rms_norm_eps", "vocab_size", "num_hidden_layers"])
      expect(message).toContain(field);
  });

  test.each([
    [{ num_attention_heads: 7, head_dim: null }, "a divisor of hidden_size 64, found 7"],
    [{ num_key_value_heads: 3 }, "a divisor of num_attention_heads 8, found 3"],
    [{ head_dim: 7 }, "an even number"],
    [{ hidden_act: "gelu" }, "hidden_act"],
    [{ quantization_config: { bits: 4 } }, "quantization_config"],
    [{ layer_types: ["full_attention", "sliding_attention"] }, "layer_types"],
    [{ partial_rotary_factor: 0.5 }, "partial_rotary_factor"],
    [{ block_configs: [] }, "expected 5 entries, found 0"],
  ])("refuses %j", (change, message) => {
    expect(captured(() => parseHubConfig({ ...plain, ...change }, "config.json"))).toContain(message);
  });

  test("what it does not know is said, what is harmless is not", () => {
    const { notices } = parseHubConfig(
      { ...plain, unsloth_version: "1", surprise: 1, layer_types: null },
      "config.json",
    );
    expect(notices).toEqual(["config.json: key surprise is not known here and was left aside"]);
  });
});

function captured(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    return (error as Error).message;
  }
  return "nothing was thrown";
}

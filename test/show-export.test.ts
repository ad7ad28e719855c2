import { spawnSync } from "node:child_process";
import { existsSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../src/base/testing.js";

function espalier(...args: string[]) {
  const options = { encoding: "utf8", cwd: repositoryPath("") } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, ["dist/cli/main.js", ...args], options);
  return { status, stdout, stderr };
}

const parent = "models/stories260K";

describe("espalier show", () => {
  test("--json prints one object with the parameters, the blocks and the sizes of exports", () => {
    const { status, stdout } = espalier("show", parent, "--json");
    expect(status).toBe(0);
    const facts = JSON.parse(stdout);
    expect(facts).toMatchObject({
      name: "stories260K",
      format: "hf",
      licence: "mit",
      parameters: 260032,
      kvBytesPerToken: 640,
      tokenizer: { vocabSize: 512, bos: "<s>", eos: ["</s>"], addBos: true, chatTemplate: false },
    });
    expect(facts.blocks).toHaveLength(5);
    expect(facts.blocks[0]).toEqual({
      attention: { kind: "gqa", kvHeads: 4 },
      ffn: { kind: "swiglu", width: 172 },
      parameters: 45440,
    });
  });

  test("for people it is a page, blocks that are alike in one line", () => {
    const { status, stdout } = espalier("show", parent);
    expect(status).toBe(0);
    expect(stdout).toContain("parameters   260,032, embedding and head tied");
    expect(stdout).toContain("blocks 0-4   4 kv heads         SwiGLU 172           45,440 parameters each");
  });
});

describe("espalier export", () => {
  test("a GGUF of the size that show foretold, with its Modelfile", () => {
    const out = join(temporaryDirectory(), "stories.gguf");
    const { sizes } = JSON.parse(espalier("show", parent, "--json").stdout);
    const { status, stdout } = espalier("export", parent, "--format", "gguf", "--type", "q8_0", "--out", out, "--json");
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ path: out, format: "gguf", type: "q8_0", bytes: sizes.q8_0 });
    expect(statSync(out).size).toBe(sizes.q8_0);
    expect(existsSync(out.replace(".gguf", ".Modelfile"))).toBe(true);
  });

  test("a directory that show reads back", () => {
    const out = join(temporaryDirectory(), "stories");
    expect(espalier("export", parent, "--format", "hf", "--type", "bf16", "--out", out).status).toBe(0);
    expect(JSON.parse(espalier("show", out, "--json").stdout)).toMatchObject({ parameters: 260032, licence: "mit" });
  });

  test("what exists is not replaced; types and formats that do not go together are told", () => {
    const out = join(temporaryDirectory(), "mine.gguf");
    writeFileSync(out, "mine");
    const taken = espalier("export", parent, "--format", "gguf", "--out", out);
    expect([taken.status, taken.stderr]).toEqual([2, expect.stringContaining("choose another path or remove it")]);
    const mixed = espalier("export", parent, "--format", "hf", "--type", "q8_0", "--out", `${out}-hf`);
    expect([mixed.status, mixed.stderr]).toEqual([2, expect.stringContaining("add --format gguf")]);
    const unknown = espalier("export", parent, "--format", "gguf", "--type", "q4_0", "--out", `${out}-q4`);
    expect([unknown.status, unknown.stderr]).toEqual([2, expect.stringContaining("f32, f16, bf16, q8_0")]);
  });
});

import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { createRng } from "../base/index.js";
import { temporaryDirectory } from "../base/testing.js";
import { openGgufFile } from "../formats/index.js";
import { createGraph, gradients, interpret } from "../graph/index.js";
import type { HostTensor } from "../tensor/index.js";
import { modelWeights } from "./config.js";
import {
  buildModel,
  createLora,
  type LoraAdapter,
  loraWeights,
  mergeLora,
  modelWeightInputs,
  positionsFrom,
  readPeft,
  readWeightRows,
  resolveLora,
  rotaryTables,
  writeGgufAdapter,
  writePeft,
} from "./index.js";
import { createTestModel, gqa, linear, referenceLogits, swiglu, testConfig } from "./testing.js";

const config = testConfig({
  vocabSize: 40,
  attentionBias: true,
  blocks: [
    { attention: gqa(2), ffn: swiglu(48) },
    { attention: linear, ffn: linear },
  ],
});
const uniform = testConfig({ vocabSize: 40, blocks: [{ attention: gqa(2), ffn: swiglu(48) }] });
const model = createTestModel(config);
const ids = [1, 7, 30, 4, 4, 19];

/** An adapter that has been trained, as far as anybody can tell: B is not zero. */
function trained(of: typeof config, options = { rank: 3, alpha: 5 }): LoraAdapter {
  const adapter = createLora(of, resolveLora(of, options), 7);
  const rng = createRng("B");
  for (const { data } of Object.values(adapter.tensors)) {
    for (let i = 0; i < data.length; i++) data[i]! += 0.2 * rng.normal();
  }
  return adapter;
}

function graphWithAdapters(adapter: LoraAdapter) {
  const g = createGraph("adapted");
  const adapters = loraWeights(config, adapter).map(({ name, shape }) => [name, g.input(name, shape)] as const);
  const tables = rotaryTables(config, positionsFrom(0, ids.length));
  const { finalHidden, headWeight } = buildModel(g, config, {
    batch: 1,
    length: ids.length,
    ids: g.input("ids", [1, ids.length], "i64"),
    weights: { ...modelWeightInputs(g, config), ...Object.fromEntries(adapters) },
    cos: g.constant(tables.cos),
    sin: g.constant(tables.sin),
    loraAlpha: adapter.alpha,
  });
  return { g, adapters: Object.fromEntries(adapters), logits: g.linear(finalHidden, headWeight) };
}

async function feedsOf(adapter: LoraAdapter): Promise<Record<string, HostTensor | readonly number[]>> {
  const feeds: Record<string, HostTensor | readonly number[]> = { ids, ...adapter.tensors };
  for (const { name } of modelWeights(config)) feeds[name] = await model.weights.read(name);
  return feeds;
}

function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  return Array.from(a).reduce((largest, value, i) => Math.max(largest, Math.abs(value - b[i]!)), 0);
}

describe("adapters", () => {
  test("stand beside every linear layer of the blocks, or those named", () => {
    const all = loraWeights(config, resolveLora(config, { rank: 4 }));
    expect(all).toHaveLength(2 * (7 + 2));
    expect(all.slice(2, 4)).toEqual([
      { name: "model.layers.0.self_attn.k_proj.lora_A.weight", shape: [4, 32] },
      { name: "model.layers.0.self_attn.k_proj.lora_B.weight", shape: [16, 4] },
    ]);
    const some = resolveLora(config, { targets: ["v_proj", "linear_mlp"] });
    expect(some).toEqual({ rank: 16, alpha: 32, targets: ["v_proj", "linear_mlp"] });
    expect(loraWeights(config, some)).toHaveLength(4);
    expect(() => resolveLora(config, { targets: ["qkv"] })).toThrow(
      /LoRA targets: expected some of q_proj, .*found qkv/,
    );
    expect(() => resolveLora(config, { rank: 0 })).toThrow("LoRA rank: expected a whole number above 0, found 0");
  });

  test("start as PEFT's do: A uniform within 1 / sqrt(in), B zero", () => {
    const { tensors } = createLora(config, resolveLora(config, { rank: 8 }), 1);
    const a = tensors["model.layers.0.mlp.down_proj.lora_A.weight"]!;
    const bound = 1 / Math.sqrt(48);
    const largest = Math.max(...a.data.map(Math.abs));
    expect(largest).toBeLessThanOrEqual(bound);
    expect(largest).toBeGreaterThan(0.95 * bound);
    const square = a.data.reduce((sum, x) => sum + x * x, 0) / a.data.length;
    expect(square / (bound ** 2 / 3)).toBeCloseTo(1, 1);
    expect(tensors["model.layers.0.mlp.down_proj.lora_B.weight"]!.data.every((x) => x === 0)).toBe(true);
  });

  test("a merged model gives the logits of model and adapter", async () => {
    const adapter = trained(config);
    const { g, logits } = graphWithAdapters(adapter);
    g.output("logits", logits);
    const { data } = interpret(g, await feedsOf(adapter)).logits!;
    const plain = await referenceLogits(model, ids);
    const merged = mergeLora(model, adapter);
    expect(largestDifference(data, plain)).toBeGreaterThan(0.5);
    expect(largestDifference(data, await referenceLogits(merged, ids))).toBeLessThan(1e-5);
    const name = "model.layers.0.mlp.up_proj.weight";
    const rows = await readWeightRows(merged.weights, name, 5, 9);
    const whole = (await merged.weights.read(name)).data as Float32Array;
    expect(rows.data).toEqual(whole.subarray(5 * 32, 9 * 32));
  });

  test("gradients of A and B equal central differences", async () => {
    const adapter = trained(config);
    const { g, adapters, logits } = graphWithAdapters(adapter);
    const loss = g.mean(g.square(logits));
    g.output("loss", loss);
    const names = Object.keys(adapters);
    gradients(g, loss, Object.values(adapters)).forEach((gradient, i) => {
      g.output(names[i]!, gradient);
    });
    const feeds = await feedsOf(adapter);
    const found = interpret(g, feeds);
    for (const name of names) {
      const { data, shape } = adapter.tensors[name]!;
      const at = (17 * name.length) % data.length;
      const moved = (step: number) => {
        const values = Array.from(data, (x, i) => (i === at ? x + step : x));
        return interpret(g, { ...feeds, [name]: values }).loss!.data[0]!;
      };
      const expected = (moved(1e-4) - moved(-1e-4)) / 2e-4;
      expect(found[name]!.shape).toEqual(shape);
      expect(Math.abs(found[name]!.data[at]! - expected), name).toBeLessThan(1e-5 * (1 + Math.abs(expected)));
    }
  });
});

describe("files of adapters", () => {
  test("PEFT's directory: names, settings, and the same adapter read back", async () => {
    const directory = join(temporaryDirectory(), "peft");
    const adapter = trained(config);
    await writePeft(adapter, directory, { baseModel: "some/model" });
    const stated = JSON.parse(await readFile(join(directory, "adapter_config.json"), "utf8"));
    expect(stated).toMatchObject({ peft_type: "LORA", r: 3, lora_alpha: 5, base_model_name_or_path: "some/model" });
    expect(stated.target_modules).toEqual(adapter.targets);
    const header = (await readFile(join(directory, "adapter_model.safetensors"))).toString("latin1");
    expect(header).toContain('"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"');
    expect(await readPeft(directory, config)).toEqual(adapter);

    await expect(readPeft(directory, uniform)).rejects.toThrow(/LoRA targets: expected some of/);
    const narrow = { ...config, blocks: [{ attention: gqa(4), ffn: swiglu(48) }, config.blocks[1]!] };
    await expect(readPeft(directory, narrow)).rejects.toThrow(
      /expected model.layers.0.self_attn.k_proj.lora_B.weight of shape \[32,3\], found \[16,3\]/,
    );
    await writeFile(join(directory, "adapter_config.json"), JSON.stringify({ ...stated, use_rslora: true }));
    expect((await readPeft(directory, config)).alpha).toBeCloseTo(5 * Math.sqrt(3), 12);
    await writeFile(join(directory, "adapter_config.json"), JSON.stringify({ ...stated, use_dora: true }));
    await expect(readPeft(directory, config)).rejects.toThrow("use_dora");
  });

  test("llama.cpp's adapter: its keys, and rows of q and k in pairs", async () => {
    const path = join(temporaryDirectory(), "adapter.gguf");
    const adapter = trained(uniform);
    await writeGgufAdapter(createTestModel(uniform), adapter, path);
    const file = await openGgufFile(path);
    expect(file.metadata.get("general.type")?.value).toBe("adapter");
    expect(file.metadata.get("adapter.type")?.value).toBe("lora");
    expect(file.metadata.get("adapter.lora.alpha")?.value).toBe(5);
    expect(file.info("blk.0.attn_q.weight.lora_a")!.shape).toEqual([3, 32]);
    const ours = adapter.tensors["model.layers.0.self_attn.q_proj.lora_B.weight"]!.data;
    const theirs = await file.read("blk.0.attn_q.weight.lora_b");
    // Of the first head of 8: row 1 is the partner of row 0 in llama.cpp, four rows on in ours.
    expect(theirs.subarray(3, 6)).toEqual(ours.subarray(12, 15));
    expect(await file.read("blk.0.ffn_down.weight.lora_b")).toEqual(
      adapter.tensors["model.layers.0.mlp.down_proj.lora_B.weight"]!.data,
    );
    await file.close();
    await expect(writeGgufAdapter(model, trained(config), path)).rejects.toThrow("merge the adapter");
  });
});

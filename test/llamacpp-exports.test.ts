// What is written is what llama.cpp computes: its logits on our GGUF files against our engine's on the model in memory.
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { EspalierError } from "../src/base/index.js";
import { repositoryPath, sharedPath, temporaryDirectory } from "../src/base/testing.js";
import { createEngine } from "../src/engine/index.js";
import { type GgufTensorPlan, openGgufFile, writeGgufFile } from "../src/formats/index.js";
import { createInferenceEngine, createLlamaCpp } from "../src/llamacpp/index.js";
import {
  type BlockConfig,
  blockWeights,
  createLora,
  layerPrefix,
  type Model,
  mergeLora,
  openModel,
  overlayModel,
  resolveLora,
  writeGguf,
  writeGgufAdapter,
} from "../src/models/index.js";
import { createRuntime, type Runtime } from "../src/runtime/index.js";
import type { HostTensor } from "../src/tensor/index.js";
import { loadTokenizer } from "../src/tokenizer/index.js";

const llama = createLlamaCpp({ threads: 1 });
const directory = temporaryDirectory();
let runtime: Runtime;
let parent: Model;

beforeAll(async () => {
  runtime = await createRuntime({ threads: 1 });
  parent = await openModel(repositoryPath("models/stories260K"));
});
afterAll(async () => {
  await parent.close();
  await llama.dispose();
});

const ids = [1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426, 338, 401, 396, 267];

/** Largest difference of the logits at every position. */
async function difference(gguf: string, model: Model, sequence: number[] = ids): Promise<number> {
  const [theirs] = await llama.logits(gguf, [sequence]);
  const engine = createEngine(runtime, model);
  const { data } = await engine.logits(await engine.forward([sequence]));
  expect(theirs!.length).toBe(data.length);
  return theirs!.reduce((largest, value, i) => Math.max(largest, Math.abs(value - data[i]!)), 0);
}

const full: BlockConfig = { attention: { kind: "gqa", kvHeads: 4 }, ffn: { kind: "swiglu", width: 172 } };

/** A child whose blocks all differ: fewer kv heads and channels are slices of the parent's, linear maps are made up. */
async function irregularChild(blocks: BlockConfig[]): Promise<Model> {
  const config = { ...parent.config, family: "deci" as const, blocks };
  const tensors = new Map<string, HostTensor>();
  for (const [layer, block] of blocks.entries()) {
    for (const { name, shape } of blockWeights(config, block)) {
      const full = layerPrefix(layer) + name;
      const source = parent.weights.has(full) ? await parent.weights.read(full) : undefined;
      tensors.set(full, { dtype: "f32", shape, data: slice(source, shape) });
    }
  }
  return overlayModel(parent, config, tensors);
}

function slice(source: HostTensor | undefined, shape: readonly number[]): Float32Array {
  const [rows, columns = 1] = shape as [number, number?];
  const data = source?.data as Float32Array | undefined;
  const width = source?.shape[1] ?? 1;
  return Float32Array.from({ length: rows * columns }, (_, i) => {
    if (!data) return 0.05 * Math.sin(i);
    return data[Math.floor(i / columns) * width + (i % columns)]!;
  });
}

describe("stories260K in llama.cpp", () => {
  test.each([
    ["f32", 1e-3],
    ["f16", 5e-2],
  ] as const)("%s logits within %f", async (type, tolerance) => {
    const path = join(directory, `parent.${type}.gguf`);
    await writeGguf(parent, path, { type });
    expect(await difference(path, parent)).toBeLessThan(tolerance);
  });

  test("tokenizes as we do", async () => {
    const path = join(directory, "tokens.gguf");
    await writeGguf(parent, path, { type: "f16" });
    const tokenizer = loadTokenizer(parent.sidecars.tokenizer!, "stories260K");
    const texts = ["Once upon a time", "Lily said: “Hello, Tom!”\n\n  1 2 3", "naïve café 🐶"];
    const ours = texts.map((text) => tokenizer.encode(text, { addSpecial: false }));
    expect(await llama.tokenizeMany(path, texts)).toEqual(ours.map((list) => [...list]));
  });

  test("continues the greedy story that our engine is held to", async () => {
    const path = join(directory, "story.gguf");
    await writeGguf(parent, path, { type: "f32" });
    const { ids: found, text } = await llama.generate(path, [1], { maxTokens: 24 });
    const engine = createEngine(runtime, parent);
    const all = [1, ...found];
    const { data } = await engine.logits(await engine.forward([all]));
    for (const [position, id] of found.entries()) {
      const row = data.subarray(position * 512, (position + 1) * 512);
      expect(row[id]).toBeGreaterThan(Math.max(...row) - 1e-3);
    }
    expect(text.startsWith("Once upon a time")).toBe(true);
  });
});

test("an adapter beside the model gives the logits of the merged model", async () => {
  const [base, path] = [join(directory, "base.gguf"), join(directory, "adapter.gguf")];
  await writeGguf(parent, base, { type: "f32" });
  const adapter = createLora(parent.config, resolveLora(parent.config, { rank: 4, alpha: 6 }), 1);
  for (const { data } of Object.values(adapter.tensors)) {
    for (const i of data.keys()) data[i]! += 0.1 * Math.sin(i);
  }
  await writeGgufAdapter(parent, adapter, path);
  const engine = createEngine(runtime, mergeLora(parent, adapter));
  const { data } = await engine.logits(await engine.forward([ids]));
  const [plain] = await llama.logits(base, [ids]);
  const [adapted] = await llama.logits(base, [ids], { adapter: path });
  const largest = (found: Float32Array) => found.reduce((most, x, i) => Math.max(most, Math.abs(x - data[i]!)), 0);
  expect(largest(plain!)).toBeGreaterThan(1);
  expect(largest(adapted!)).toBeLessThan(1e-3);
});

describe("irregular children in llama.cpp (deci)", () => {
  const children: [string, BlockConfig[]][] = [
    [
      "fewer kv heads and narrower feed-forwards",
      [1, 2, 4, 2, 1].map((kvHeads, i) => ({
        attention: { kind: "gqa", kvHeads },
        ffn: { kind: "swiglu", width: 172 - 32 * i },
      })),
    ],
    [
      "linear attention, no attention, both in the first layer's place and the last's",
      [
        { attention: { kind: "none" }, ffn: { kind: "swiglu", width: 88 } },
        full,
        { attention: { kind: "linear" }, ffn: { kind: "swiglu", width: 96 } },
        { attention: { kind: "none" }, ffn: { kind: "swiglu", width: 32 } },
        { attention: { kind: "linear" }, ffn: { kind: "none" } },
      ],
    ],
    [
      "attention without feed-forward, feed-forward linear, empty blocks",
      [
        { attention: { kind: "gqa", kvHeads: 2 }, ffn: { kind: "none" } },
        { attention: { kind: "none" }, ffn: { kind: "none" } },
        { attention: { kind: "gqa", kvHeads: 4 }, ffn: { kind: "linear" } },
        { attention: { kind: "gqa", kvHeads: 1 }, ffn: { kind: "none" } },
        { attention: { kind: "none" }, ffn: { kind: "none" } },
      ],
    ],
  ];

  test.each(children)("%s", async (name, blocks) => {
    const child = await irregularChild(blocks);
    const path = join(directory, `${name.slice(0, 12)}.gguf`);
    await writeGguf(child, path, { type: "f32" });
    expect(await difference(path, child)).toBeLessThan(1e-3);
    // The same function when read back: packing blocks anew changes nothing.
    const reread = await openModel(path);
    expect(await difference(path, reread)).toBeLessThan(1e-3);
    await reread.close();
  });

  test("a file that makes ggml abort is an error that quotes it; the next call works", async () => {
    const good = join(directory, "good.gguf");
    const bad = join(directory, "bad.gguf");
    await writeGguf(await irregularChild(children[0]![1]), good, { type: "f32" });
    await dropLastFfn(good, bad, 4);
    const failure = await llama.logits(bad, [ids]).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(EspalierError);
    expect(String(failure)).toContain("GGML_ASSERT");
    expect(await llama.logits(good, [ids])).toHaveLength(1);
    const engine = createInferenceEngine();
    const answer = async () => (await engine.loadModel(bad, { threads: 1 })).complete({ prompt: ids, maxTokens: 1 });
    const message = String(await answer().catch((error: unknown) => error));
    expect(message).toContain(`${bad}: expected llama.cpp to run it, found the end of its process`);
    expect(message).toContain("GGML_ASSERT");
    await engine.dispose();
  });
});

/** What our writer never does: the last layer without feed-forward. */
async function dropLastFfn(from: string, to: string, layer: number): Promise<void> {
  const file = await openGgufFile(from);
  const key = "deci.feed_forward_length";
  const entries = [...file.metadata].map(([name, entry]) => {
    if (name !== key || entry.type !== "array") return [name, entry] as const;
    const widths = Int32Array.from(entry.value as Int32Array);
    widths[layer] = 0;
    return [name, { ...entry, value: widths }] as const;
  });
  const plans = file.names
    .filter((name) => !name.startsWith(`blk.${layer}.ffn_`))
    .map((name): GgufTensorPlan => ({ name, shape: file.info(name)!.shape, type: "f32", read: () => file.read(name) }));
  await writeGgufFile(to, entries, plans);
  await file.close();
}

const smol = sharedPath("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
test.skipIf(!smol)(
  "SmolLM2-135M exported to F16 is within 0.05 of our engine (optional test data)",
  { timeout: 300_000 },
  async () => {
    const model = await openModel(smol!);
    const path = join(directory, "smol.f16.gguf");
    await writeGguf(model, path, { type: "f16" });
    expect(await difference(path, model, [504, 3575, 282, 4649, 314, 7042, 30])).toBeLessThan(5e-2);
    await model.close();
  },
);

import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ignoreEvents, mean, type OnEvent } from "../base/index.js";
import { temporaryDirectory } from "../base/testing.js";
import { sequenceAt, sliceSequences } from "../data/index.js";
import { createEngine, scoreSequences } from "../engine/index.js";
import type { BlockConfig, Model, ModelConfig } from "../models/index.js";
import { createRuntime, type Runtime } from "../runtime/index.js";
import { f32Tensor } from "../tensor/index.js";
import {
  type BatchedText,
  buildSpace,
  buildVariants,
  calibrate,
  capture,
  composeLibrary,
  distilBlocks,
  openBlockLibrary,
  openChild,
  readScores,
  realise,
  scoreBlocks,
} from "./index.js";
import { randomModel, randomText, tinyConfig } from "./testing.js";

let runtime: Runtime;
beforeAll(async () => {
  runtime = await createRuntime({ threads: 1 });
});
afterAll(() => runtime.dispose());

const quiet = { onEvent: ignoreEvents as OnEvent, signal: new AbortController().signal };

/** The stages up to the scores, in a directory of their own. */
async function runChain(parent: Model, { joint = true } = {}) {
  const root = temporaryDirectory();
  const directories = {
    statistics: join(root, "statistics"),
    library: join(root, "library"),
    captured: join(root, "captured"),
    scores: join(root, "scores"),
  };
  const engine = createEngine(runtime, parent);
  const space = buildSpace(parent.config, { targets: ["hf"] });
  const text = randomText(parent.config, { count: 12, length: 16, batch: 5 });
  const scoring = randomText(parent.config, { count: 5, length: 12, batch: 2 });
  const shared = { ...quiet, runtime, engine, space };
  const library = openBlockLibrary(directories.library, parent);
  const calibrated = () => calibrate({ ...shared, text, directory: directories.statistics });
  const built = () =>
    buildVariants({ ...shared, parent, statistics: directories.statistics, directory: directories.library });
  const scored = () =>
    scoreBlocks({
      ...shared,
      library,
      text: scoring,
      captured: directories.captured,
      directory: directories.scores,
      joint,
    });
  await calibrated();
  await built();
  await capture({ ...quiet, engine, text: scoring, directory: directories.captured });
  await scored();
  const kl = async (layer: number) => {
    const scores = await readScores(directories.scores, layer);
    return Object.fromEntries(Object.entries(scores.kl).map(([id, values]) => [id, mean(values)]));
  };
  return { root, directories, engine, space, text, library, kl, calibrated, built, scored };
}

type Chain = Awaited<ReturnType<typeof runChain>>;

async function makeChild(
  { engine, library, text, directories }: Pick<Chain, "engine" | "library" | "text" | "directories">,
  blocks: readonly BlockConfig[],
  options: { refit?: boolean; directory?: string; tokens?: number } = {},
): Promise<Model> {
  const { directory = temporaryDirectory(), refit = true, tokens } = options;
  await realise({
    ...quiet,
    runtime,
    engine,
    library,
    blocks,
    text,
    captured: directories.statistics,
    refit,
    directory,
    ...(tokens !== undefined && { tokens }),
  });
  return openChild(engine.model, directory);
}

/** Mean KL from the parent; closes the child. */
async function klOf(child: Model, parent: Chain["engine"], { sequences }: BatchedText): Promise<number> {
  const rows = Array.from({ length: sequences.count }, (_, i) => sequenceAt(sequences, i));
  const scores = await scoreSequences(createEngine(runtime, child), rows, { reference: parent });
  await child.close();
  return mean(scores.map(({ kl }) => kl!));
}

function filesOf(directory: string): Record<string, string> {
  const names = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return Object.fromEntries(
    names.map((entry) => {
      const path = join(entry.parentPath, entry.name);
      return [path.slice(directory.length), readFileSync(path).toString("base64")];
    }),
  );
}

describe("a random parent", () => {
  const config = tinyConfig();
  const parent = randomModel(config, "parent");
  let chain: Chain;
  beforeAll(async () => {
    chain = await runChain(parent);
  }, 60_000);

  test("its own blocks score zero, every pair has a score, none is negative", async () => {
    for (const layer of config.blocks.keys()) {
      const kl = await chain.kl(layer);
      expect(Object.keys(kl)).toHaveLength(5 * 7);
      expect(kl["gqa 4 | swiglu 24 (100%)"]).toBeCloseTo(0, 6);
      expect(Math.min(...Object.values(kl))).toBeGreaterThan(-1e-6);
      expect(kl["linear | none"]).toBeGreaterThan(0.01);
    }
  });

  test("no refit is worse than its start on the calibration text", async () => {
    for (const layer of config.blocks.keys()) {
      const { variants, channels } = await chain.library.index(layer);
      expect(variants).toHaveLength(8);
      for (const { startError, refitError } of variants) expect(refitError).toBeLessThanOrEqual(startError!);
      expect([...channels!].sort((a, b) => a - b)).toEqual(Array.from({ length: 24 }, (_, i) => i));
    }
  });

  test("the search library has all pairs with costs, scores and intervals", async () => {
    const scores = await Promise.all(config.blocks.map((_, layer) => readScores(chain.directories.scores, layer)));
    const library = composeLibrary(config, chain.space, scores, { costs: () => ({ memory: 7 }) });
    // 3 * 16 * 24 + 16 parameters of the feed-forward stay.
    const { stats, metrics } = library["1"]!["none | swiglu 24 (100%)"]!;
    expect(stats).toEqual({ params: 1168, memory: 7 });
    expect(metrics.kl_div_low).toBeLessThan(metrics.kl_div!);
    expect(metrics.kl_div_high).toBeGreaterThan(metrics.kl_div!);
  });

  test("scoring halves apart gives the same numbers for them, and joins the rest", async () => {
    const apart = await runChain(parent, { joint: false });
    const [joint, halves] = [await chain.kl(1), await apart.kl(1)];
    expect(Object.keys(halves)).toHaveLength(5 + 7 - 1);
    for (const [id, kl] of Object.entries(halves)) expect(kl).toBeCloseTo(joint[id]!, 6);
    const scores = await Promise.all(config.blocks.map((_, layer) => readScores(apart.directories.scores, layer)));
    const library = composeLibrary(config, apart.space, scores);
    const [a, f] = [halves["none | swiglu 24 (100%)"]!, halves["gqa 4 | none"]!];
    expect(library["1"]!["none | none"]!.metrics.kl_div).toBeGreaterThanOrEqual(0.76 * (a + f) - 1e-9);
    expect(library["1"]!["none | none"]!.metrics.kl_div).toBeLessThanOrEqual(a + f);
  });

  test("stages that were cut short end with the same files", async () => {
    const { statistics, library, scores } = chain.directories;
    const before = [statistics, library, scores].map(filesOf);
    rmSync(join(library, "layer-001", "index.json"));
    rmSync(join(scores, "layer-002.json"));
    await chain.built();
    await chain.scored();
    expect([statistics, library, scores].map(filesOf)).toEqual(before);
  });

  test("calibration that is stopped in the middle goes on to the same files", async () => {
    const directory = temporaryDirectory();
    const { engine, space, text } = chain;
    const stop = new AbortController();
    const request = { runtime, engine, space, text, directory, onEvent: () => stop.abort() };
    await expect(calibrate({ ...request, signal: stop.signal })).rejects.toThrow();
    await calibrate({ ...request, ...quiet });
    expect(filesOf(directory)).toEqual(filesOf(chain.directories.statistics));
  });

  test("a child with the parent's blocks is the parent", async () => {
    const child = await makeChild(chain, config.blocks);
    expect(await klOf(child, chain.engine, chain.text)).toBeLessThan(1e-6);
  });

  const small: BlockConfig[] = [
    { attention: { kind: "linear" }, ffn: { kind: "swiglu", width: 12 } },
    { attention: { kind: "none" }, ffn: { kind: "linear" } },
    { attention: { kind: "gqa", kvHeads: 1 }, ffn: { kind: "none" } },
  ];

  test("a refit in sequence brings a child nearer than the library's blocks alone", async () => {
    const [plain, refitted] = [await makeChild(chain, small, { refit: false }), await makeChild(chain, small)];
    expect(refitted.config.family).toBe("deci");
    const [before, after] = [
      await klOf(plain, chain.engine, chain.text),
      await klOf(refitted, chain.engine, chain.text),
    ];
    expect(after).toBeLessThan(0.9 * before);
  });

  test("up to the first changed layer a child is its parent; behind it unchanged layers are fitted too", async () => {
    const blocks = config.blocks.with(1, { ...config.blocks[1]!, ffn: { kind: "swiglu", width: 12 } });
    const [plain, child] = [await makeChild(chain, blocks, { refit: false }), await makeChild(chain, blocks)];
    const down = (model: Model, layer: number) => model.weights.read(`model.layers.${layer}.mlp.down_proj.weight`);
    expect((await down(child, 0)).data).toEqual((await down(parent, 0)).data);
    for (const layer of [1, 2]) expect((await down(child, layer)).data).not.toEqual((await down(plain, layer)).data);
    const [before, after] = [await klOf(plain, chain.engine, chain.text), await klOf(child, chain.engine, chain.text)];
    expect(after).toBeLessThan(before);
  });

  test("fits on a part of the text are those of a text that ends there", async () => {
    // Twelve sequences of 16 tokens: 70 tokens are five of them, and a batch is five.
    const blocks = config.blocks.with(0, { ...config.blocks[0]!, ffn: { kind: "swiglu", width: 12 } });
    const part = { ...chain.text, sequences: sliceSequences(chain.text.sequences, 0, 5) };
    const captured = temporaryDirectory();
    await capture({ ...quiet, engine: chain.engine, text: part, directory: captured });
    const some = await makeChild(chain, blocks, { tokens: 70 });
    const short = await makeChild(
      { ...chain, text: part, directories: { ...chain.directories, statistics: captured } },
      blocks,
    );
    for (const name of [0, 1, 2].map((layer) => `model.layers.${layer}.mlp.down_proj.weight`)) {
      expect((await some.weights.read(name)).data).toEqual((await short.weights.read(name)).data);
    }
    await some.close();
    await short.close();
  });

  test("a realisation that is stopped in the middle goes on to the same files", async () => {
    const [whole, broken] = [temporaryDirectory(), temporaryDirectory()];
    await (await makeChild(chain, small, { directory: whole })).close();
    const stop = new AbortController();
    const { engine, library, text, directories } = chain;
    const captured = directories.statistics;
    const request = { runtime, engine, library, blocks: small, text, captured, directory: broken };
    await expect(realise({ ...request, onEvent: () => stop.abort(), signal: stop.signal })).rejects.toThrow();
    // As if the power had gone before the last layer's stream was removed.
    writeFileSync(join(broken, "child", "inputs-000.f32"), "left");
    await realise({ ...request, ...quiet });
    expect(filesOf(broken)).toEqual(filesOf(whole));
  });

  test("block distillation lowers the errors that a closed form leaves, and is repeatable", async () => {
    const [captured, first, second] = [temporaryDirectory(), temporaryDirectory(), temporaryDirectory()];
    const { engine, library, text } = chain;
    await capture({ ...quiet, engine, text, directory: captured });
    const shared = { ...quiet, runtime, engine, library, text, captured, tokens: 2000 };
    for (const directory of [first, second]) await distilBlocks({ ...shared, directory, learningRate: 5e-3 });
    const trained = openBlockLibrary(first, parent);
    const entries = (await Promise.all(config.blocks.map((_, layer) => trained.index(layer)))).flatMap(
      (index) => index.variants,
    );
    // A linear variant is at its optimum already.
    const open = entries.filter(({ id }) => id !== "linear");
    const [before, after] = [
      mean(open.map((entry) => entry.refitError!)),
      mean(open.map((entry) => entry.distilledError!)),
    ];
    expect(after).toBeLessThan(0.95 * before);
    expect(filesOf(second)).toEqual(filesOf(first));
  });

  test("a width that the library lacks is cut from the parent; an unknown name lists the known ones", async () => {
    const weights = await chain.library.weights(0, "ffn", "swiglu 20 (83%)");
    expect(weights.get("mlp.down_proj.weight")!.shape).toEqual([16, 20]);
    await expect(chain.library.weights(0, "attention", "gqa 3")).rejects.toThrow(/one of gqa 4, gqa 2, gqa 1, linear/);
  });
});

describe("parents whose smaller variants are exact", () => {
  const layer1 = (name: string) => `model.layers.1.${name}`;

  test("equal kv heads: merging loses nothing", async () => {
    const parent = randomModel(tinyConfig(), "equal heads", (weights) => {
      for (const name of [layer1("self_attn.k_proj.weight"), layer1("self_attn.v_proj.weight")]) {
        const { data } = f32Tensor([16, 16], weights.get(name)!.data as Float32Array);
        for (let head = 1; head < 4; head++) data.copyWithin(head * 64, 0, 64);
      }
    });
    const kl = await (await runChain(parent)).kl(1);
    expect(kl["gqa 2 | swiglu 24 (100%)"]).toBeLessThan(1e-6);
    expect(kl["gqa 1 | swiglu 24 (100%)"]).toBeLessThan(1e-6);
  });

  test("a feed-forward that is linear: the linear variant is it", async () => {
    // A gate of bias alone multiplies every channel by silu(1).
    const config: ModelConfig = tinyConfig({ mlpBias: true });
    const parent = randomModel(config, "linear", (weights) => {
      (weights.get(layer1("mlp.gate_proj.weight"))!.data as Float32Array).fill(0);
      (weights.get(layer1("mlp.gate_proj.bias"))!.data as Float32Array).fill(1);
      for (const name of ["up", "down"]) (weights.get(layer1(`mlp.${name}_proj.bias`))!.data as Float32Array).fill(0);
    });
    const chain = await runChain(parent);
    const entry = (await chain.library.index(1)).variants.find(({ part, id }) => part === "ffn" && id === "linear")!;
    // Wdown Wup lacks the factor silu(1) = 0.731: an error of (1/0.731 - 1)^2 = 0.135. The pull of 1e-2 towards it is
    // all that the refit has left.
    expect(entry.startError).toBeCloseTo((1 / 0.7310586 - 1) ** 2, 4);
    expect(entry.refitError).toBeLessThan(1e-3);
    expect((await chain.kl(1))["gqa 4 | linear"]).toBeLessThan(1e-3);
  });

  test("channels that nothing reads: half the width is enough", async () => {
    const parent = randomModel(tinyConfig(), "silent", (weights) => {
      const down = weights.get(layer1("mlp.down_proj.weight"))!.data as Float32Array; // [16, 24]
      for (let i = 0; i < down.length; i++) if ((i % 24) % 2 === 1) down[i] = 0;
    });
    const chain = await runChain(parent);
    expect((await chain.library.index(1)).channels!.slice(0, 12).every((channel) => channel % 2 === 0)).toBe(true);
    const kl = await chain.kl(1);
    expect(kl["gqa 4 | swiglu 12 (50%)"]).toBeLessThan(1e-6);
    expect(kl["gqa 4 | swiglu 8 (33%)"]).toBeGreaterThan(1e-4);
  });
});

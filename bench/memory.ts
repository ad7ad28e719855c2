/**
 * @module Peak memory of a run over a parent of Llama 3.2 1B's shape with random weights, stage by stage, against the
 * bytes of its weights; and what twice the layers add. One process does all stages, as `reshape` does, with the engine's
 * defaults: weights beyond 1 GiB as f32 are not kept in memory. Exports are read back by our own engine; llama.cpp, which
 * maps the whole file that it runs, is left out.
 *
 * `npm run bench -- memory [LAYERS...] [DIRECTORY]`: 16 and 32 layers in a temporary directory. In a directory that is
 * named, a run that was stopped goes on, and its peaks are kept.
 */
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import {
  createRng,
  createRssMeter,
  fileExists,
  formatBytes,
  formatSeconds,
  ignoreEvents,
  readJson,
  writeJsonAtomic,
} from "../src/base/index.js";
import { createEngine, type Engine } from "../src/engine/index.js";
import { type BlockConfig, type Model, openModel, writeGguf, writeHub } from "../src/models/index.js";
import { forecastMemory } from "../src/plan/index.js";
import { parentId } from "../src/puzzle/block-library.js";
import {
  type BatchedText,
  blockChoices,
  buildVariants,
  calibrate,
  capture,
  openBlockLibrary,
  openChild,
  realise,
  type Space,
  scoreBlocks,
} from "../src/puzzle/index.js";
import { createRuntime, type Runtime } from "../src/runtime/index.js";
import type { Bench } from "./main.js";
import { oneBillion, writeSynthetic } from "./synthetic-model.js";

const [length, sequences] = [128, 2];
const quiet = { onEvent: ignoreEvents, signal: new AbortController().signal };

interface StagePeak {
  seconds: number;
  peakBytes: number;
}

interface Row {
  layers: number;
  weightBytes: number;
  stages: Record<string, StagePeak>;
  peakBytes: number;
  /** Peak over the bytes of the weights. */
  ratio: number;
  forecastBytes: number;
}

export const memory: Bench = async ({ json, args }) => {
  const say = (text: string) => process.stderr.write(`${text}\n`);
  const counts = args.filter((word) => /^\d+$/.test(word)).map(Number);
  const named = args.find((word) => !/^\d+$/.test(word));
  const root = named === undefined ? await mkdtemp(join(tmpdir(), "espalier-memory-")) : resolve(named);
  const rows: Row[] = [];
  for (const layers of counts.length > 0 ? counts : [16, 32]) rows.push(await measureLayers(root, layers, say));
  if (named === undefined) await rm(root, { recursive: true });
  process.stdout.write(json ? `${JSON.stringify(rows, null, 2)}\n` : render(rows));
};

interface Bed {
  root: string;
  runtime: Runtime;
  parent: Model;
  engine: Engine;
  space: Space;
  text: BatchedText;
  blocks: BlockConfig[];
}

async function measureLayers(root: string, layers: number, say: (text: string) => void): Promise<Row> {
  const directory = join(root, `${layers}-layers`);
  const model = join(directory, "parent");
  if (!(await fileExists(join(model, "model.safetensors.index.json")))) {
    say(`writing a model of ${layers} layers to ${model}`);
    await writeSynthetic(model, { ...oneBillion, layers });
  }
  const bed = await createBed(model, directory);
  const peaks = join(directory, "peaks.json");
  const known = (await fileExists(peaks)) ? ((await readJson(peaks)) as Record<string, StagePeak>) : {};
  const meter = createRssMeter({ intervalMs: 20 });
  for (const [name, run] of stagesOf(bed)) {
    if (await fileExists(join(directory, `${name}.done`))) continue;
    meter.reset();
    const started = performance.now();
    // What an interrupted run has seen counts as well.
    const note = async () => {
      const before = known[name] ?? { seconds: 0, peakBytes: 0 };
      known[name] = {
        seconds: Math.max(before.seconds, (performance.now() - started) / 1000),
        peakBytes: Math.max(before.peakBytes, meter.peakBytes()),
      };
      await writeJsonAtomic(peaks, known);
    };
    const noting = setInterval(() => void note(), 5000);
    await run();
    clearInterval(noting);
    await bed.runtime.dispose();
    await note();
    say(`${layers} layers, ${name}: ${formatBytes(known[name]!.peakBytes)}, ${formatSeconds(known[name]!.seconds)}`);
    await writeJsonAtomic(join(directory, `${name}.done`), {});
  }
  meter.stop();
  await bed.parent.close();
  const weightBytes = await bytesOfWeights(model);
  const peakBytes = Math.max(...Object.values(known).map((stage) => stage.peakBytes));
  const forecast = forecastMemory(bed.parent.config, {
    length,
    batch: sequences,
    distilTokens: 0,
    distilBatch: 1,
    children: 1,
    share: 1,
    choices: bed.space.layers.map(blockChoices),
  });
  return {
    layers,
    weightBytes,
    stages: known,
    peakBytes,
    ratio: peakBytes / weightBytes,
    forecastBytes: forecast.bytes,
  };
}

async function createBed(model: string, root: string): Promise<Bed> {
  const runtime = await createRuntime({ maxSessions: 24 });
  const parent = await openModel(model);
  const { config } = parent;
  const rng = createRng("memory bench");
  const ids = Int32Array.from({ length: length * sequences }, () => rng.int(config.vocabSize));
  const engine = createEngine(runtime, parent);
  const ffn = { kind: "swiglu", width: oneBillion.ffn / 2 } as const;
  const attention = { kind: "gqa", kvHeads: oneBillion.kvHeads / 2 } as const;
  const space: Space = {
    layers: config.blocks.map((block, layer) => ({
      layer,
      span: 1,
      attention: [
        { id: parentId(parent, layer, "attention"), config: block.attention },
        { id: `gqa ${attention.kvHeads}`, config: attention },
      ],
      ffn: [
        { id: parentId(parent, layer, "ffn"), config: block.ffn },
        { id: `swiglu ${ffn.width} (50%)`, config: ffn },
      ],
    })),
    omitted: [],
  };
  return {
    root,
    runtime,
    parent,
    engine,
    space,
    text: {
      sequences: { name: "random", length, count: sequences, ids, documents: sequences, skipped: 0 },
      batch: sequences,
    },
    // Every second layer keeps its feed-forward, so that both widths are refitted.
    blocks: config.blocks.map((block, layer) => ({ attention, ffn: layer % 2 === 0 ? ffn : block.ffn })),
  };
}

function stagesOf(bed: Bed): [string, () => Promise<void>][] {
  const { root, runtime, parent, engine, space, text, blocks } = bed;
  const at = (name: string) => join(root, name);
  const library = openBlockLibrary(at("variants"), parent);
  return [
    ["calibrate", () => calibrate({ ...quiet, engine, runtime, space, text, directory: at("calibrate") })],
    [
      "variants",
      async () => {
        await buildVariants({
          ...quiet,
          runtime,
          parent,
          space,
          statistics: at("calibrate"),
          directory: at("variants"),
        });
        await rm(at("calibrate"), { recursive: true });
      },
    ],
    ["capture", () => capture({ ...quiet, engine, text, directory: at("capture") })],
    [
      "score",
      () =>
        scoreBlocks({
          ...quiet,
          engine,
          space,
          library,
          text,
          captured: at("capture"),
          directory: at("score"),
          joint: false,
        }),
    ],
    [
      "realise",
      async () => {
        await realise({
          ...quiet,
          engine,
          runtime,
          library,
          blocks,
          text,
          captured: at("capture"),
          directory: at("child"),
        });
        await rm(at("variants"), { recursive: true });
      },
    ],
    ["export f16 GGUF", () => withChild(bed, (child) => exportGguf(child, at("child.f16.gguf"), "f16", runtime))],
    [
      "export bf16 safetensors",
      () =>
        withChild(bed, async (child) => {
          await writeHub(child, at("hub"), { type: "bf16", overwrite: true });
          await rm(at("hub"), { recursive: true });
        }),
    ],
  ];
}

async function withChild(bed: Bed, run: (child: Model) => Promise<void>): Promise<void> {
  const child = await openChild(bed.parent, join(bed.root, "child"));
  await run(child).finally(() => child.close());
}

/** Written, opened again and compared by our own engine, whose weights are read block by block. */
async function exportGguf(child: Model, path: string, type: "f16", runtime: Runtime): Promise<void> {
  await writeGguf(child, path, { type, overwrite: true });
  const written = await openModel(path);
  const [own, back] = [createEngine(runtime, child), createEngine(runtime, written)];
  const ids = [Int32Array.from({ length: 32 }, (_, i) => 100 * i)];
  const [kl] = await back.klAgainst({ engine: own, x: await own.forward(ids) }, await back.forward(ids), { batch: 1 });
  await written.close();
  await rm(path);
  if (!(kl! < 0.01)) throw new Error(`the export is ${kl} nats from the child`);
}

async function bytesOfWeights(directory: string): Promise<number> {
  const names = (await readdir(directory)).filter((name) => name.endsWith(".safetensors"));
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(directory, name))).size));
  return sizes.reduce((a, b) => a + b, 0);
}

function render(rows: readonly Row[]): string {
  const lines = rows.flatMap(({ layers, weightBytes, stages, peakBytes, ratio, forecastBytes }) => [
    `${layers} layers, ${formatBytes(weightBytes)} of bf16 weights`,
    ...Object.entries(stages).map(
      ([name, stage]) =>
        `  ${name.padEnd(36)} ${formatBytes(stage.peakBytes).padStart(10)}  ${formatSeconds(stage.seconds)}`,
    ),
    `  peak ${formatBytes(peakBytes)}, ${ratio.toFixed(2)} of the weights; forecast ${formatBytes(forecastBytes)} ` +
      `(${percent(forecastBytes / peakBytes - 1)})`,
  ]);
  const [first, ...more] = rows;
  for (const row of more) {
    lines.push(
      `${row.layers} layers against ${first!.layers}: ${percent(row.peakBytes / first!.peakBytes - 1)} of memory`,
    );
  }
  return `${lines.join("\n")}\n`;
}

function percent(share: number): string {
  return `${share < 0 ? "" : "+"}${(100 * share).toFixed(1)} %`;
}

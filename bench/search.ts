/**
 * @module How good the blocks of a library are, and what they cost: slices, closed form, and block distillation at
 * several token counts from both, measured as replace-one-block KL summed over the variants of all layers (six layers of
 * the larger model). Shows where gradient descent starts to pay: N, the seconds that block distillation takes to the
 * closed form's KL.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ignoreEvents, mean } from "../src/base/index.js";
import { repositoryPath, sharedPath } from "../src/base/testing.js";
import { bundledTextPath, createSequences, readDocuments, sliceSequences } from "../src/data/index.js";
import { createEngine, type Engine } from "../src/engine/index.js";
import { type Model, openModel } from "../src/models/index.js";
import {
  type BatchedText,
  type BuildVariantsOptions,
  buildSpace,
  buildVariants,
  type ChannelRanking,
  calibrate,
  capture,
  distilBlocks,
  openBlockLibrary,
  readScores,
  type Space,
  type SpaceOptions,
  scoreBlocks,
} from "../src/puzzle/index.js";
import { createRuntime, type Runtime } from "../src/runtime/index.js";
import { loadTokenizer } from "../src/tokenizer/index.js";
import type { Bench } from "./main.js";
import { compareRace, describeRace, type RaceRow } from "./race.js";

/** A model and how much of it, and of text, is measured. */
interface Case {
  name: string;
  path: string | undefined;
  text: string | undefined;
  /** Layers whose variants are made. Defaults to all. */
  layers?: readonly number[];
  space: SpaceOptions;
  calibrationTokens: number;
  scoringTokens: number;
  /** Positions of a sequence that are compared. Defaults to all. */
  positions?: number;
  /** Tokens of different text to train on; more are passes over it. Defaults to as many as the largest count. */
  trainingText?: number;
  /** Tokens of block distillation for each variant. */
  counts: readonly number[];
  learningRate: number;
  /** Starts of block distillation. */
  distilled: readonly string[];
  rankings: readonly ChannelRanking[];
}

const stories = {
  text: bundledTextPath("train"),
  space: {},
  calibrationTokens: 24_576,
  scoringTokens: 8_192,
  counts: [16_384, 65_536, 262_144],
  learningRate: 3e-3,
  distilled: ["sliced by contribution", "closed form"],
  rankings: ["contribution", "elimination"],
} as const;

const cases: readonly Case[] = [
  { name: "stories260K", path: repositoryPath("models/stories260K"), ...stories },
  { name: "tinystories-656K", path: sharedPath("models/tinystories-656K"), ...stories },
  {
    name: "smollm2-135m-instruct",
    path: sharedPath("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf"),
    text: sharedPath("data/wikitext2/wiki.train_5k.raw.gz"),
    layers: [0, 6, 12, 18, 24, 29],
    space: { ffnFractions: [1, 0.5], none: false },
    calibrationTokens: 2_048,
    scoringTokens: 512,
    positions: 64,
    // What every layer reads of it lies on disk.
    trainingText: 32_768,
    counts: [16_384, 196_608],
    learningRate: 3e-3,
    distilled: ["sliced by contribution"],
    rankings: ["contribution"],
  },
];

const length = 256;
const quiet = { onEvent: ignoreEvents, signal: new AbortController().signal };

/** One way to make the blocks. */
interface Row {
  model: string;
  method: string;
  /** Tokens that each variant was trained on. */
  tokens: number;
  /** Wall-clock seconds to make all variants, calibration included. */
  seconds: number;
  /** Sum of the replace-one-block KL, nats a token, over all layers. */
  kl: { total: number; ffnWidths: number; ffnLinear: number; kvHeads: number; attentionLinear: number };
  /** With the closed form: racing against scoring everything, on whole models. */
  race?: RaceRow;
}

/** Arguments: names of models (default: all) and numbers of tokens (default: the model's own). */
export const search: Bench = async ({ json, args }) => {
  const say = (text: string) => process.stderr.write(`${text}\n`);
  const counts = args.map(Number).filter((count) => count > 0);
  const names = args.filter((word) => !(Number(word) > 0));
  const rows: Row[] = [];
  for (const one of cases.filter(({ name }) => names.length === 0 || names.some((word) => name.startsWith(word)))) {
    const { name, path, text } = one;
    if (path === undefined || text === undefined) say(`${name}: not found beside this checkout, left out`);
    else rows.push(...(await measureModel({ ...one, ...(counts.length > 0 && { counts }) }, path, text, say)));
  }
  process.stdout.write(json ? `${JSON.stringify(rows, null, 2)}\n` : render(rows));
};

interface Bed {
  runtime: Runtime;
  parent: Model;
  engine: Engine;
  space: Space;
  root: string;
  calibration: BatchedText;
  scoring: BatchedText;
  training: BatchedText;
  layers: readonly number[];
  positions?: number;
}

async function measureModel(one: Case, path: string, text: string, say: (text: string) => void): Promise<Row[]> {
  const { name, counts, learningRate } = one;
  const bed = await createBed(one, path, text);
  const { runtime, parent, engine, space, root, calibration } = bed;
  const rows: Row[] = [];
  const add = async (method: string, tokens: number, seconds: number, library: string) => {
    const row = { model: name, method, tokens, seconds, kl: await sumKl(bed, library) };
    say(`  ${method}, ${tokens} tokens: ${seconds.toFixed(1)} s, KL ${row.kl.total.toFixed(3)}`);
    rows.push(row);
  };
  say(name);
  const statistics = join(root, "statistics");
  const calibrating = await timed(() =>
    calibrate({ ...quiet, runtime, engine, space, text: calibration, directory: statistics }),
  );
  await capture({ ...quiet, engine, text: bed.scoring, directory: join(root, "scoring") });
  const starts: [method: string, options: BuildVariantsOptions][] = [
    ...one.rankings.map((ranking): [string, BuildVariantsOptions] => [
      `sliced by ${ranking}`,
      { refit: false, ranking },
    ]),
    ["closed form", { ranking: one.rankings.at(-1)! }],
  ];
  for (const [method, options] of starts) {
    const directory = join(root, method.replaceAll(" ", "-"));
    const building = await timed(() =>
      buildVariants({ ...quiet, ...options, runtime, parent, space, statistics, directory }),
    );
    await add(method, 0, calibrating + building, directory);
    if (method === "closed form" && !one.layers) rows.at(-1)!.race = await raceAgainstAll(bed, directory);
    for (const tokens of one.distilled.includes(method) ? counts : []) {
      const trained = `${directory}-${tokens}`;
      const training = await timed(() => distilTo(bed, directory, trained, { tokens, learningRate }));
      await add(`${method}, then distilled`, tokens, calibrating + building + training, trained);
    }
  }
  await parent.close();
  await runtime.dispose();
  await rm(root, { recursive: true });
  return rows;
}

/** Block distillation of a whole library, what it reads of the parent captured first. */
async function distilTo(
  { engine, parent, runtime, root, training }: Bed,
  start: string,
  directory: string,
  options: { tokens: number; learningRate: number },
): Promise<void> {
  const captured = join(root, "training");
  const count = Math.min(training.sequences.count, Math.ceil(options.tokens / length));
  const text = { ...training, sequences: sliceSequences(training.sequences, 0, count) };
  await capture({ ...quiet, engine, text, directory: captured });
  const library = openBlockLibrary(start, parent);
  await distilBlocks({ ...quiet, ...options, runtime, engine, library, text, captured, directory });
  await rm(captured, { recursive: true });
}

function raceAgainstAll({ engine, parent, space, scoring, root }: Bed, libraryPath: string): Promise<RaceRow> {
  const library = openBlockLibrary(libraryPath, parent);
  const captured = join(root, "scoring");
  return compareRace(root, { ...quiet, engine, space, library, text: scoring, captured, joint: false });
}

async function createBed(one: Case, path: string, text: string): Promise<Bed> {
  const runtime = await createRuntime();
  const parent = await openModel(path);
  const tokenizer = loadTokenizer(parent.sidecars.tokenizer!);
  const trainingText = Math.min(one.trainingText ?? Number.POSITIVE_INFINITY, Math.max(...one.counts));
  const wanted = one.calibrationTokens + one.scoringTokens + trainingText;
  const maxCount = Math.ceil(wanted / length);
  const sequences = createSequences(tokenizer, await readDocuments(text), { length, maxCount });
  const layers = one.layers ?? parent.config.blocks.map((_, layer) => layer);
  let used = 0;
  const take = (tokens: number): BatchedText => {
    const part = sliceSequences(sequences, used, used + Math.round(tokens / length));
    used += part.count;
    return { sequences: part, batch: 8 };
  };
  return {
    runtime,
    parent,
    engine: createEngine(runtime, parent),
    space: onlyLayers(buildSpace(parent.config, one.space), layers),
    layers,
    root: await mkdtemp(join(tmpdir(), "espalier-bench-")),
    calibration: take(one.calibrationTokens),
    scoring: take(one.scoringTokens),
    training: take(trainingText),
    ...(one.positions !== undefined && { positions: one.positions }),
  };
}

/** Other layers keep their own blocks. */
function onlyLayers(space: Space, wanted: readonly number[]): Space {
  return {
    ...space,
    layers: space.layers.map((entry) =>
      wanted.includes(entry.layer)
        ? entry
        : { ...entry, attention: entry.attention.slice(0, 1), ffn: entry.ffn.slice(0, 1) },
    ),
  };
}

/** Scores every variant alone beside the parent's other half. */
async function sumKl(bed: Bed, libraryPath: string): Promise<Row["kl"]> {
  const { parent, engine, space, root, scoring, layers, positions } = bed;
  const directory = await mkdtemp(join(root, "scores-"));
  const library = openBlockLibrary(libraryPath, parent);
  const request = { ...quiet, engine, space, library, text: scoring, captured: join(root, "scoring"), directory };
  await scoreBlocks({ ...request, joint: false, layers, ...(positions !== undefined && { positions }) });
  const kl = { total: 0, ffnWidths: 0, ffnLinear: 0, kvHeads: 0, attentionLinear: 0 };
  for (const { layer, attention, ffn } of space.layers.filter((entry) => layers.includes(entry.layer))) {
    const scores = (await readScores(directory, layer)).kl;
    const sum = (ids: string[]) => ids.reduce((total, id) => total + mean(scores[id]!), 0);
    const [ownAttention, ownFfn] = [attention[0]!, ffn[0]!];
    const beside = (kind: string) => [
      ...attention.slice(1).flatMap(({ id, config }) => (config.kind === kind ? [`${id} | ${ownFfn.id}`] : [])),
    ];
    const ffnBeside = (kind: string) => [
      ...ffn.slice(1).flatMap(({ id, config }) => (config.kind === kind ? [`${ownAttention.id} | ${id}`] : [])),
    ];
    kl.kvHeads += sum(beside("gqa"));
    kl.attentionLinear += sum(beside("linear"));
    kl.ffnWidths += sum(ffnBeside("swiglu"));
    kl.ffnLinear += sum(ffnBeside("linear"));
  }
  kl.total = kl.kvHeads + kl.attentionLinear + kl.ffnWidths + kl.ffnLinear;
  return kl;
}

async function timed(work: () => Promise<void>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

const header = ["tokens", "seconds", "KL", "FFN widths", "FFN linear", "kv heads", "attn linear"];

function render(rows: readonly Row[]): string {
  const lines = rows.map(({ method, tokens, seconds, kl }) => {
    const numbers = [kl.total, kl.ffnWidths, kl.ffnLinear, kl.kvHeads, kl.attentionLinear].map((x) => x.toFixed(3));
    return [
      method.padEnd(36),
      ...[String(tokens), seconds.toFixed(1), ...numbers].map((cell) => cell.padStart(11)),
    ].join("");
  });
  const title = `${" ".repeat(36)}${header.map((cell) => cell.padStart(11)).join("")}`;
  const names = [...new Set(rows.map(({ model }) => model))];
  return names
    .map((name) =>
      [name, title, ...lines.filter((_, i) => rows[i]!.model === name), payingPoint(name, rows), ""].join("\n"),
    )
    .join("\n");
}

/** Where block distillation reaches the closed form: seconds from slices, and whether it pays on top of it. */
function payingPoint(name: string, rows: readonly Row[]): string {
  const own = rows.filter(({ model }) => model === name);
  const closed = own.find(({ method }) => method === "closed form")!;
  const sliced = own.filter(({ method }) => method.startsWith("sliced by contribution"));
  const n = secondsTo(closed.kl.total, sliced);
  const longest = sliced.at(-1)!.seconds;
  const ratio = (n ?? longest) / closed.seconds;
  const said = `${n === undefined ? "more than " : ""}${(n ?? longest).toFixed(0)} s`;
  const better = own.find(({ method, kl }) => method === "closed form, then distilled" && kl.total < closed.kl.total);
  return [
    `closed form: KL ${closed.kl.total.toFixed(3)} in ${closed.seconds.toFixed(1)} s`,
    `N, the seconds in which block distillation from slices reaches it: ${said}, ${n === undefined ? "more than " : ""}${ratio.toFixed(1)} times as long`,
    ...(closed.race ? [describeRace(closed.race)] : []),
    ...(better ? [`distilling the closed form pays from ${better.tokens} tokens a variant`] : []),
  ].join("\n");
}

/** Seconds at which a curve of KL against seconds comes down to a value, between its points in straight lines. */
function secondsTo(kl: number, curve: readonly Row[]): number | undefined {
  const at = curve.findIndex((row) => row.kl.total <= kl);
  if (at < 0) return undefined;
  const [before, after] = [curve[at - 1], curve[at]!];
  if (!before) return after.seconds;
  const share = (before.kl.total - kl) / (before.kl.total - after.kl.total);
  return before.seconds + share * (after.seconds - before.seconds);
}

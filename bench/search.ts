/**
 * @module How good the blocks of a library are, and what they cost: slices, closed form, and block distillation at
 * several token counts from both, measured as replace-one-block KL summed over all variants of all layers. Shows where
 * gradient descent starts to pay.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ignoreEvents, mean } from "../src/base/index.js";
import { repositoryPath, sharedPath } from "../src/base/testing.js";
import { bundledTextPath, createSequences, readDocuments } from "../src/data/index.js";
import { createEngine, type Engine } from "../src/engine/index.js";
import { type Model, openModel } from "../src/models/index.js";
import {
  type BatchedText,
  type BuildVariantsOptions,
  buildSpace,
  buildVariants,
  calibrate,
  capture,
  distilBlocks,
  openBlockLibrary,
  readScores,
  type Space,
  scoreBlocks,
} from "../src/puzzle/index.js";
import { createRuntime, type Runtime } from "../src/runtime/index.js";
import { loadTokenizer } from "../src/tokenizer/index.js";
import type { Bench } from "./main.js";

const models: readonly { name: string; path: string | undefined }[] = [
  { name: "stories260K", path: repositoryPath("models/stories260K") },
  { name: "tinystories-656K", path: sharedPath("models/tinystories-656K") },
];

const length = 256;
const calibrationTokens = 24_576;
const scoringTokens = 4_096;
const defaultCounts = [16_384, 65_536, 262_144];
const learningRate = 3e-3;
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
}

export const search: Bench = async ({ json, args }) => {
  const say = (text: string) => process.stderr.write(`${text}\n`);
  const counts = args.length > 0 ? args.map(Number) : defaultCounts;
  const rows: Row[] = [];
  for (const { name, path } of models) {
    if (path === undefined) say(`${name}: not found beside this checkout, left out`);
    else rows.push(...(await measureModel(name, path, counts, say)));
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
}

async function measureModel(name: string, path: string, counts: number[], say: (text: string) => void): Promise<Row[]> {
  const bed = await createBed(path, Math.max(...counts));
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
  const capturing = await timed(() =>
    capture({ ...quiet, engine, text: bed.training, directory: join(root, "training") }),
  );
  const starts: [method: string, options: BuildVariantsOptions][] = [
    ["sliced by contribution", { refit: false, ranking: "contribution" }],
    ["sliced by elimination", { refit: false }],
    ["closed form", {}],
  ];
  for (const [method, options] of starts) {
    const directory = join(root, method.replaceAll(" ", "-"));
    const building = await timed(() =>
      buildVariants({ ...quiet, ...options, runtime, parent, space, statistics, directory }),
    );
    await add(method, 0, calibrating + building, directory);
    if (method === "sliced by elimination") continue;
    for (const tokens of counts) {
      const trained = `${directory}-${tokens}`;
      const library = openBlockLibrary(directory, parent);
      const captured = join(root, "training");
      const training = await timed(() =>
        distilBlocks({
          ...quiet,
          runtime,
          engine,
          library,
          text: bed.training,
          captured,
          directory: trained,
          tokens,
          learningRate,
        }),
      );
      await add(`${method}, then distilled`, tokens, calibrating + building + capturing + training, trained);
    }
  }
  await parent.close();
  await runtime.dispose();
  await rm(root, { recursive: true });
  return rows;
}

async function createBed(path: string, trainingTokens: number): Promise<Bed> {
  const runtime = await createRuntime();
  const parent = await openModel(path);
  const tokenizer = loadTokenizer(parent.sidecars.tokenizer!);
  const documents = await readDocuments(bundledTextPath("train"));
  const sequences = createSequences(tokenizer, documents, { length });
  let used = 0;
  const take = (tokens: number): BatchedText => {
    const count = Math.min(Math.round(tokens / length), sequences.count - used);
    const ids = sequences.ids.slice(used * length, (used + count) * length);
    used += count;
    return { sequences: { ...sequences, count, ids }, batch: 8 };
  };
  return {
    runtime,
    parent,
    engine: createEngine(runtime, parent),
    space: buildSpace(parent.config),
    root: await mkdtemp(join(tmpdir(), "espalier-bench-")),
    calibration: take(calibrationTokens),
    scoring: take(scoringTokens),
    training: take(trainingTokens),
  };
}

/** Scores every variant alone beside the parent's other half. */
async function sumKl({ parent, engine, space, root, scoring }: Bed, libraryPath: string): Promise<Row["kl"]> {
  const directory = await mkdtemp(join(root, "scores-"));
  const library = openBlockLibrary(libraryPath, parent);
  const captured = join(root, "scoring");
  await scoreBlocks({ ...quiet, engine, space, library, text: scoring, captured, directory, joint: false });
  const kl = { total: 0, ffnWidths: 0, ffnLinear: 0, kvHeads: 0, attentionLinear: 0 };
  for (const { layer, attention, ffn } of space.layers) {
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

/** Fewest tokens at which gradient descent beats the closed form: from slices, and on top of it. */
function payingPoint(name: string, rows: readonly Row[]): string {
  const own = rows.filter(({ model }) => model === name);
  const closed = own.find(({ method }) => method === "closed form")!;
  const first = (start: string) =>
    own.find(({ method, kl }) => method === `${start}, then distilled` && kl.total < closed.kl.total);
  const say = (row: Row | undefined) =>
    row
      ? `from ${row.tokens} tokens a variant (${(row.seconds / closed.seconds).toFixed(0)}x the time)`
      : "at none of these counts";
  return `distilled slices beat the closed form ${say(first("sliced by contribution"))}; distilling the closed form pays ${say(first("closed form"))}`;
}

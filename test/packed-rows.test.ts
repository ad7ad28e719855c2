// Packed rows are their samples: the real model gives the same log-probabilities to each alone.
import { afterAll, beforeAll, expect, test } from "vitest";
import { createRng } from "../src/base/index.js";
import { repositoryPath } from "../src/base/testing.js";
import {
  type BranchedSample,
  type PackableSample,
  type PackedRow,
  type PackShape,
  packSamples,
  type TokenSample,
} from "../src/data/index.js";
import { createGraph } from "../src/graph/index.js";
import {
  buildModel,
  buildPackedMask,
  type Model,
  modelWeightInputs,
  modelWeights,
  openModel,
  rotaryTables,
} from "../src/models/index.js";
import { createRuntime, type Runtime } from "../src/runtime/index.js";
import { type HostTensor, i64Tensor } from "../src/tensor/index.js";
import { loadTokenizer } from "../src/tokenizer/index.js";

let runtime: Runtime;
let model: Model;
let weights: Record<string, HostTensor>;
beforeAll(async () => {
  runtime = await createRuntime({ threads: 1 });
  model = await openModel(repositoryPath("models/stories260K"));
  const read = modelWeights(model.config).map(async ({ name }) => [name, await model.weights.read(name)] as const);
  weights = Object.fromEntries(await Promise.all(read));
});
afterAll(async () => {
  await model.close();
  await runtime.dispose();
});

type RowInputs = Pick<PackedRow, "ids" | "segments" | "prefixes" | "positions">;

/** Log-probabilities of every token at every place, [B * T, V]. */
async function logProbs(rows: readonly RowInputs[], length: number): Promise<(place: number, id: number) => number> {
  const { config } = model;
  const batch = rows.length;
  const g = createGraph("packed rows");
  const inputs = modelWeightInputs(g, config);
  const tables = rotaryTables(
    config,
    rows.flatMap(({ positions }) => [...positions]),
    batch,
  );
  const [segments, prefixes] = [
    g.input("segments", [batch, length], "i64"),
    g.input("prefixes", [batch, length], "i64"),
  ];
  const { finalHidden, headWeight } = buildModel(g, config, {
    batch,
    length,
    ids: g.input("ids", [batch, length], "i64"),
    weights: inputs,
    cos: g.constant(tables.cos),
    sin: g.constant(tables.sin),
    mask: buildPackedMask(g, segments, prefixes),
  });
  g.output("logProbs", g.logSoftmax(g.linear(finalHidden, headWeight)));
  const feed = (of: (row: RowInputs) => Int32Array) =>
    i64Tensor(
      [batch, length],
      rows.flatMap((row) => [...of(row)]),
    );
  const feeds = {
    ...weights,
    ids: feed((row) => row.ids),
    segments: feed((row) => row.segments),
    prefixes: feed((row) => row.prefixes),
  };
  const { logProbs: out } = await (await runtime.compile(g)).run(feeds);
  return (place, id) => (out!.data as Float32Array)[place * config.vocabSize + id]!;
}

/** Log-probabilities of each sequence's targets, by "sample/branch". */
async function packedLogProbs(samples: readonly PackableSample[], shape: PackShape): Promise<Map<string, number[]>> {
  const result = new Map<string, number[]>();
  for (const { rows, sequences } of packSamples(samples, shape).batches) {
    const at = await logProbs(rows, shape.length);
    rows.forEach(({ targets }, row) => {
      for (const { from, id, sequence } of targets) {
        const { sample, branch } = sequences[sequence]!;
        const key = `${sample}/${branch}`;
        result.set(key, [...(result.get(key) ?? []), at(row * shape.length + from, id)]);
      }
    });
  }
  return result;
}

/** One sequence in a padded row of its own, under the causal mask of ids from the first on. */
async function aloneLogProbs({ ids, learn }: TokenSample, length: number): Promise<number[]> {
  const padded = (value: (i: number) => number, padding: number) =>
    Int32Array.from({ length }, (_, i) => (i < ids.length ? value(i) : padding));
  const at = await logProbs(
    [
      {
        ids: padded((i) => ids[i]!, 0),
        segments: padded(() => 0, 0),
        prefixes: padded(() => 0, 0),
        positions: Int32Array.from({ length }, (_, i) => i),
      },
    ],
    length,
  );
  return [...ids].flatMap((id, i) => (learn[i] === 1 ? [at(i - 1, id)] : []));
}

const rng = createRng("packed rows");
const tokens = (length: number): number[] => Array.from({ length }, () => 3 + rng.int(500));
const sample = (length: number): TokenSample => ({
  ids: Int32Array.from([1, ...tokens(length - 1)]),
  learn: Uint8Array.from({ length }, (_, i) => Number(i > length / 3)),
});

function largestDifference(a: readonly number[], b: readonly number[]): number {
  expect(a).toHaveLength(b.length);
  return Math.max(...a.map((value, i) => Math.abs(value - b[i]!)));
}

test("packed samples have the log-probabilities that each has alone", async () => {
  const tokenizer = loadTokenizer(model.sidecars.tokenizer);
  const story = tokenizer.encode("Once upon a time, there was a little girl named Lily.");
  const samples = [
    ...[5, 31, 12, 20, 9, 3, 26, 17].map(sample),
    { ids: Int32Array.from(story), learn: Uint8Array.from(story, (_, i) => Number(i > 0)) },
  ];
  const packed = await packedLogProbs(samples, { batch: 2, length: 48, targets: 64, sequences: 6 });
  for (const [i, own] of samples.entries()) {
    expect(largestDifference(packed.get(`${i}/0`)!, await aloneLogProbs(own, 40))).toBeLessThan(1e-4);
  }
  // Lily's story is what the model knows: a sign that these are its probabilities at all.
  const known = packed.get("8/0")!;
  expect(known.reduce((sum, value) => sum + value, 0) / known.length).toBeGreaterThan(-1.5);
});

test("branches have the log-probabilities of prompt and branch alone", async () => {
  const branch = (length: number): TokenSample => ({
    ids: Int32Array.from(tokens(length)),
    learn: new Uint8Array(length).fill(1),
  });
  const samples: BranchedSample[] = [
    { prompt: Int32Array.from([1, ...tokens(9)]), branches: [branch(7), branch(1), branch(12)] },
    {
      prompt: Int32Array.from([1, ...tokens(3)]),
      branches: [branch(6), { ...branch(5), learn: Uint8Array.of(0, 1, 0, 1, 1) }],
    },
    { prompt: Int32Array.of(1), branches: [branch(4), branch(4)] },
  ];
  const packed = await packedLogProbs([...samples, sample(10)], { batch: 2, length: 40 });
  expect(packed.size).toBe(8);
  for (const [i, { prompt, branches }] of samples.entries()) {
    for (const [b, { ids, learn }] of branches.entries()) {
      const whole = {
        ids: Int32Array.from([...prompt, ...ids]),
        learn: Uint8Array.from([...new Uint8Array(prompt.length), ...learn]),
      };
      expect(largestDifference(packed.get(`${i}/${b}`)!, await aloneLogProbs(whole, 32))).toBeLessThan(1e-4);
    }
  }
});

test("a branch that could see its sibling would differ: the mask is what keeps them apart", async () => {
  const branch = (length: number): TokenSample => ({
    ids: Int32Array.from(tokens(length)),
    learn: new Uint8Array(length).fill(1),
  });
  const own: BranchedSample = { prompt: Int32Array.from([1, ...tokens(5)]), branches: [branch(8), branch(8)] };
  const { rows } = packSamples([own], { batch: 1, length: 24 }).batches[0]!;
  const { targets } = rows[0]!;
  const apart = await logProbs(rows, 24);
  const open = {
    ...rows[0]!,
    segments: rows[0]!.segments.map((segment) => Math.min(segment, 0)),
    prefixes: rows[0]!.prefixes,
  };
  const together = await logProbs([open], 24);
  const ofSecond = targets.filter(({ sequence }) => sequence === 1).slice(1);
  const difference = ofSecond.map(({ from, id }) => Math.abs(apart(from, id) - together(from, id)));
  expect(Math.max(...difference)).toBeGreaterThan(0.01);
});

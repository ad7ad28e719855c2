/**
 * @module The frozen reference of preference training: its log-probabilities, computed once and kept in a file, and how
 * far a policy has gone from it.
 */
import { createHash } from "node:crypto";
import { digestJson, EspalierError, fileExists, ignoreEvents, type OnEvent } from "../base/index.js";
import type { BranchedSample } from "../data/index.js";
import { packSamples } from "../data/index.js";
import { openSafetensorsFile, writeSafetensors } from "../formats/index.js";
import { createGraph, type Graph, type GraphBuilder, type LanguageHead, type Value } from "../graph/index.js";
import type { Runtime, Tensors } from "../runtime/index.js";
import {
  buildPackedModel,
  type PackedModel,
  type PackedShape,
  packedFeeds,
  packedInputs,
  type SampleScorer,
  weightInfos,
} from "../train/index.js";

/** Log-probabilities of the learnt tokens of both answers of a pair, in nats. */
export type PairLogProbs = readonly [chosen: Float32Array, rejected: Float32Array];

export interface ReferenceOptions {
  /** File that holds what is known so far: safetensors with the digest of weights and pairs. */
  path: string;
  /** In events. */
  stage: string;
  onEvent?: OnEvent;
}

/** Pairs that are scored between two writes. */
const chunkPairs = 128;

/**
 * The reference's log-probabilities of all pairs. A file that was begun is gone on with.
 * @throws EspalierError for a file of other weights or other pairs
 */
export async function referenceLogProbs(
  score: SampleScorer,
  pairs: readonly BranchedSample[],
  weights: Tensors,
  { path, stage, onEvent = ignoreEvents }: ReferenceOptions,
): Promise<PairLogProbs[]> {
  const digest = digestJson([digestTensors(weights), pairs.map(digestPair)]);
  const known = (await fileExists(path)) ? await readScores(path, digest, pairs) : [];
  while (known.length < pairs.length) {
    const next = pairs.slice(known.length, known.length + chunkPairs);
    known.push(...(await scorePairs(score, next, weights)));
    await writeScores(path, digest, known);
    onEvent({ event: "progress", stage, done: known.length, total: pairs.length, unit: "pairs", note: "reference" });
  }
  return known;
}

/** Log-probabilities of pairs under weights. */
export async function scorePairs(
  score: SampleScorer,
  pairs: readonly BranchedSample[],
  weights: Tensors,
): Promise<PairLogProbs[]> {
  const scores = await score(pairs, weights);
  return pairs.map((_, i) => [scores[2 * i]!.logProbs, scores[2 * i + 1]!.logProbs]);
}

/** The largest difference of any token's log-probability, in nats. */
export function largestGap(a: readonly PairLogProbs[], b: readonly PairLogProbs[]): number {
  const gaps = a.flatMap((pair, i) =>
    pair.map((x, side) => x.reduce((most, value, t) => Math.max(most, Math.abs(value - b[i]![side]![t]!)), 0)),
  );
  return gaps.reduce((most, gap) => Math.max(most, gap), 0);
}

function digestTensors(tensors: Tensors): string {
  const hash = createHash("sha256");
  for (const name of Object.keys(tensors).sort()) {
    const { data, shape } = tensors[name]!;
    hash.update(`${name} ${shape}\n`).update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  return hash.digest("hex");
}

const digestPair = ({ prompt, branches }: BranchedSample): unknown => [
  Array.from(prompt),
  branches.map(({ ids, learn }) => [Array.from(ids), Array.from(learn)]),
];

async function writeScores(path: string, digest: string, scores: readonly PairLogProbs[]): Promise<void> {
  const values = Float32Array.from(scores.flatMap(([chosen, rejected]) => [...chosen, ...rejected]));
  const metadata = { digest, pairs: String(scores.length) };
  const plan = { name: "log_probs", shape: [values.length], read: async () => values };
  await writeSafetensors(path, [plan], { metadata });
}

async function readScores(path: string, digest: string, pairs: readonly BranchedSample[]): Promise<PairLogProbs[]> {
  const file = await openSafetensorsFile(path);
  try {
    if (file.metadata.digest !== digest) {
      const expected = "log-probabilities of these weights and pairs";
      throw new EspalierError({ where: path, expected, found: "those of others", fix: "delete the file" });
    }
    const values = await file.read("log_probs");
    let at = 0;
    const take = (learn: Uint8Array) => {
      const from = at;
      at += learn.reduce((sum, x) => sum + x, 0);
      return values.slice(from, at);
    };
    return pairs
      .slice(0, Number(file.metadata.pairs))
      .map(({ branches: [chosen, rejected] }) => [take(chosen!.learn), take(rejected!.learn)]);
  } finally {
    await file.close();
  }
}

/** What the reference's weights are called among a program's inputs. */
const referencePrefix = "reference/";

/** Positions whose logits of both models exist at one time. */
const klChunk = 128;

/**
 * The KL divergence of the policy's next-token distribution from the reference's, KL(policy || reference) over the whole
 * vocabulary, at each learnt token. Output `kl`, nats, [N].
 */
export function referenceKlGraph(
  name: string,
  policy: PackedModel,
  reference: PackedModel,
  shape: PackedShape,
  chunk = klChunk,
): Graph {
  const g = createGraph(name);
  const inputs = packedInputs(g, shape);
  const values = ({ config, lora }: PackedModel, prefix: string) =>
    Object.fromEntries(weightInfos(config, lora).map((info) => [info.name, g.input(prefix + info.name, info.shape)]));
  const headOf = (model: PackedModel, prefix: string): LanguageHead => {
    const { finalHidden, headWeight } = buildPackedModel(g, model, shape, inputs, values(model, prefix));
    return { hidden: g.gather(finalHidden, inputs.from), head: headWeight };
  };
  g.output("kl", buildKl(g, headOf(policy, ""), headOf(reference, referencePrefix), chunk));
  return g;
}

function buildKl(g: GraphBuilder, own: LanguageHead, other: LanguageHead, chunk: number): Value {
  const parts: Value[] = [];
  const positions = own.hidden.shape[0]!;
  for (let from = 0; from < positions; from += chunk) {
    const of = ({ hidden, head }: LanguageHead) => {
      const rows = g.after(g.slice(hidden, 0, from, Math.min(from + chunk, positions)), parts.slice(-1));
      return g.logSoftmax(g.linear(rows, head)); // [C, V]
    };
    const [p, q] = [of(own), of(other)];
    parts.push(g.sum(g.mul(g.exp(p), g.sub(p, q)), { axes: [1] }));
  }
  return g.concat(parts, 0);
}

export interface ReferenceKlOptions {
  policy: PackedModel;
  reference: PackedModel;
  shape: PackedShape;
  signal?: AbortSignal;
}

/** Mean KL over the learnt tokens of both answers of each pair, nats a token. */
export type ReferenceKl = (
  pairs: readonly BranchedSample[],
  policyWeights: Tensors,
  referenceWeights: Tensors,
) => Promise<number[]>;

export function createReferenceKl(runtime: Runtime, name: string, options: ReferenceKlOptions): ReferenceKl {
  const { policy, reference, shape, signal } = options;
  const graph = referenceKlGraph(name, policy, reference, shape);
  const weightsOf = (weights: Tensors, { config, lora }: PackedModel, prefix: string) =>
    weightInfos(config, lora).map((info) => [prefix + info.name, weights[info.name]!] as const);
  return async (pairs, policyWeights, referenceWeights) => {
    const program = await runtime.compile(graph);
    const weights = Object.fromEntries([
      ...weightsOf(policyWeights, policy, ""),
      ...weightsOf(referenceWeights, reference, referencePrefix),
    ]);
    const sums = pairs.map(() => ({ kl: 0, tokens: 0 }));
    for (const batch of packSamples(pairs, shape).batches) {
      signal?.throwIfAborted();
      const { weights: _, membership: __, ...inputs } = packedFeeds(batch, shape).feeds;
      const { kl } = await program.run({ ...weights, ...inputs });
      const targets = batch.rows.flatMap((row) => row.targets);
      for (const [n, { sequence }] of targets.entries()) {
        const sum = sums[batch.sequences[sequence]!.sample]!;
        sum.kl += (kl!.data as Float32Array)[n]!;
        sum.tokens += 1;
      }
    }
    return sums.map(({ kl, tokens }) => kl / tokens);
  };
}

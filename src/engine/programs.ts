import { createGraph, type GraphBuilder, type Value } from "../graph/index.js";
import {
  type BlockConfig,
  blockWeightInputs,
  buildBlock,
  buildHead,
  describeBlock,
  type ModelConfig,
} from "../models/index.js";
import type { Program, Runtime } from "../runtime/index.js";
import type { HalfType } from "../tensor/index.js";
import { buildCachedAttention } from "./kv-cache.js";
import { roundLinearInputs } from "./rounding.js";

/** Shape of a run over whole sequences. */
export interface BlockShape {
  batch: number;
  length: number;
  /** Also give the values that calibration looks at. */
  taps: boolean;
}

/** Shape of a run that continues one sequence. */
export interface CachedShape {
  /** New tokens. */
  length: number;
  /** Positions that the cache has room for. */
  capacity: number;
}

/** The engine's programs, one for each shape and shared by every layer that has it. Weights are inputs. */
export interface Programs {
  block(block: BlockConfig, shape: BlockShape): Promise<Program>;
  cachedBlock(block: BlockConfig, shape: CachedShape): Promise<Program>;
  /** x [rows, H] -> logits [rows, V], or of as many entries of the vocabulary as are given. */
  logits(rows: number, entries?: number): Promise<Program>;
  /** x [rows, H] -> logProbs [rows, V]. */
  logProbs(rows: number): Promise<Program>;
  /** x [rows, H], targets [rows] -> targetLogProbs [rows]. */
  targets(rows: number): Promise<Program>;
  /** x [rows, H], targets [rows], reference log-probs [rows, V] -> kl [rows], targetLogProbs [rows]. */
  compare(rows: number): Promise<Program>;
  /** Some entries: x [rows, H], targets [rows] -> top, sum of exp(logit - top), target: all [rows]. */
  targetSums(rows: number, entries: number): Promise<Program>;
  /**
   * Some entries: x [rows, H], reference logits [rows, entries], targets [rows] -> as `targetSums`, the same of the
   * reference, and cross, the sum of exp(reference - its top) (reference - own).
   */
  comparedSums(rows: number, entries: number): Promise<Program>;
}

/** `rounding`: every matrix takes its input in that type; see `rounding.ts`. */
export function createPrograms(runtime: Runtime, config: ModelConfig, rounding?: HalfType): Programs {
  const known = new Map<string, Promise<Program>>();
  const program = (name: string, build: (g: GraphBuilder) => void): Promise<Program> => {
    const found = known.get(name);
    if (found) return found;
    const g = createGraph(rounding ? `${name} ${rounding}` : name);
    build(rounding ? roundLinearInputs(g, rounding) : g);
    const compiling = runtime.compile(g);
    known.set(name, compiling);
    return compiling;
  };
  return {
    block: (block, shape) => {
      const { batch, length, taps } = shape;
      const name = `block ${describeBlock(block)} ${batch}x${length}${taps ? " taps" : ""}`;
      return program(name, (g) => buildWholeBlock(g, config, block, shape));
    },
    cachedBlock: (block, shape) => {
      const name = `cached block ${describeBlock(block)} ${shape.length} of ${shape.capacity}`;
      return program(name, (g) => buildCachedBlock(g, config, block, shape));
    },
    logits: (rows, entries = config.vocabSize) =>
      program(`logits ${rows} ${entries}`, (g) => g.output("logits", headLogits(g, config, rows, entries))),
    logProbs: (rows) =>
      program(`log-probs ${rows}`, (g) => g.output("logProbs", g.logSoftmax(headLogits(g, config, rows)))),
    targets: (rows) =>
      program(`target log-probs ${rows}`, (g) => {
        const logProbs = g.logSoftmax(headLogits(g, config, rows));
        g.output("targetLogProbs", g.gatherLast(logProbs, g.input("targets", [rows], "i64")));
      }),
    compare: (rows) => program(`compare ${rows}`, (g) => buildCompare(g, config, rows)),
    targetSums: (rows, entries) =>
      program(`target sums ${rows} ${entries}`, (g) => {
        const logits = headLogits(g, config, rows, entries);
        outputSums(g, logits, g.input("targets", [rows], "i64"), ["top", "sum", "target"]);
      }),
    comparedSums: (rows, entries) =>
      program(`compared sums ${rows} ${entries}`, (g) => buildComparedSums(g, config, rows, entries)),
  };
}

function streamInputs(g: GraphBuilder, config: ModelConfig, block: BlockConfig, batch: number, length: number) {
  const x = g.input("x", [batch * length, config.hiddenSize]);
  if (block.attention.kind !== "gqa") return { batch, length, x };
  const table = [1, length, config.headDim / 2];
  return { batch, length, x, cos: g.input("cos", table), sin: g.input("sin", table) };
}

function buildWholeBlock(g: GraphBuilder, config: ModelConfig, block: BlockConfig, shape: BlockShape): void {
  const inputs = streamInputs(g, config, block, shape.batch, shape.length);
  const weights = blockWeightInputs(g, config, block);
  const { output, afterAttention, taps } = buildBlock(g, config, block, { ...inputs, weights });
  g.output("output", output);
  if (!shape.taps) return;
  g.output("afterAttention", afterAttention);
  for (const [name, value] of Object.entries(taps)) g.output(name, value);
}

function buildCachedBlock(g: GraphBuilder, config: ModelConfig, block: BlockConfig, shape: CachedShape): void {
  const inputs = streamInputs(g, config, block, 1, shape.length);
  const weights = blockWeightInputs(g, config, block);
  const attend = buildCachedAttention(g, config, block, shape);
  g.output("output", buildBlock(g, config, block, { ...inputs, weights, ...(attend && { attend }) }).output);
}

function headLogits(g: GraphBuilder, config: ModelConfig, rows: number, entries = config.vocabSize) {
  const { hiddenSize: H } = config;
  const x = g.input("x", [rows, H]);
  return buildHead(g, config, x, { norm: g.input("norm", [H]), head: g.input("head", [entries, H]) }); // [rows, entries]
}

/** The largest logit, the sum of exp(logit - largest), and the logit of the target: [rows] each. Gives exp(...). */
function outputSums(
  g: GraphBuilder,
  logits: Value,
  targets: Value,
  names: readonly [top: string, sum: string, target: string],
): Value {
  const top = g.max(logits, { axes: [-1], keepDims: true });
  const exponentials = g.exp(g.sub(logits, top));
  g.output(names[0], g.reshape(top, targets.shape));
  g.output(names[1], g.sum(exponentials, { axes: [-1] }));
  g.output(names[2], g.gatherLast(logits, targets));
  return exponentials;
}

function buildComparedSums(g: GraphBuilder, config: ModelConfig, rows: number, entries: number): void {
  const own = headLogits(g, config, rows, entries);
  const reference = g.input("reference", [rows, entries]);
  const targets = g.input("targets", [rows], "i64");
  outputSums(g, own, targets, ["top", "sum", "target"]);
  const exponentials = outputSums(g, reference, targets, ["referenceTop", "referenceSum", "referenceTarget"]);
  g.output("cross", g.sum(g.mul(exponentials, g.sub(reference, own)), { axes: [-1] }));
}

/** KL(reference || own) = sum over the vocabulary of p (log p - log q), in nats. */
function buildCompare(g: GraphBuilder, config: ModelConfig, rows: number): void {
  const own = g.logSoftmax(headLogits(g, config, rows)); // [rows, V]
  const reference = g.input("reference", [rows, config.vocabSize]);
  const terms = g.mul(g.exp(reference), g.sub(reference, own));
  g.output("kl", g.sum(terms, { axes: [-1] }));
  g.output("targetLogProbs", g.gatherLast(own, g.input("targets", [rows], "i64")));
}

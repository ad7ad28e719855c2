/**
 * @module The head of a model whose vocabulary is too large to keep: its matrix is read some rows at a time, and what a
 * softmax needs of them is gathered as they pass. With r and o the logits of reference and own model,
 * Z = log sum exp and p = exp(r - Zr), the divergence is KL(r || o) = E_p[r - o] - Zr + Zo, so that one pass over the
 * vocabulary keeps five numbers a position: a maximum and a sum of exponentials for each model, and the weighted sum of
 * r - o. Ranges are joined in float64.
 */
import { headWeightName, type Model } from "../models/index.js";
import { type F32Tensor, type HostTensor, i64Tensor } from "../tensor/index.js";
import type { Programs } from "./programs.js";
import type { WeightCache } from "./weights.js";

/** Entries of the vocabulary from `from` up to, not including, `to`. */
export interface VocabularyRange {
  from: number;
  to: number;
}

export interface HeadParts {
  model: Model;
  programs: Programs;
  weights: WeightCache;
  /** Bytes of the head's matrix that are in memory at once where it is not kept. Defaults to 64 MiB. */
  headBytes?: number;
}

/** What one range says of a softmax: the largest logit, and the sum of exp(logit - largest). */
interface Sum {
  top: number;
  sum: number;
}

/** Logits of one range that are in memory at once, 8 MiB. */
const rangeLogits = 1 << 21;

/** Ranges of equal size but for the last. */
export function vocabularyRanges({ model, headBytes = 64 << 20 }: HeadParts): VocabularyRange[] {
  const { vocabSize, hiddenSize } = model.config;
  const count = Math.ceil((4 * vocabSize * hiddenSize) / headBytes);
  const size = Math.ceil(vocabSize / count);
  return Array.from({ length: Math.ceil(vocabSize / size) }, (_, i) => ({
    from: i * size,
    to: Math.min(vocabSize, (i + 1) * size),
  }));
}

/** Rows that run at once. */
export function streamedRows(ranges: readonly VocabularyRange[]): number {
  const { from, to } = ranges[0]!;
  return Math.min(1024, Math.max(16, 2 ** Math.floor(Math.log2(rangeLogits / (to - from)))));
}

/** Logits of one range: x [rows, H] -> [rows, to - from]. */
export async function partialLogits(
  { model, programs, weights }: HeadParts,
  x: F32Tensor,
  range: VocabularyRange,
): Promise<F32Tensor> {
  const program = await programs.logits(x.shape[0]!, range.to - range.from);
  const { logits } = await program.run({ x, ...(await headRows(model, weights, range)) });
  return logits as F32Tensor;
}

async function headRows(model: Model, weights: WeightCache, { from, to }: VocabularyRange) {
  const norm = await weights.read("model.norm.weight");
  return { norm, head: await weights.readRows(headWeightName(model.config), from, to) };
}

/** Logits of the whole vocabulary, written to `into` [rows, V]. */
export async function streamLogits(parts: HeadParts, x: F32Tensor, into: F32Tensor): Promise<void> {
  const vocabulary = parts.model.config.vocabSize;
  for (const range of vocabularyRanges(parts)) {
    const { data } = await partialLogits(parts, x, range);
    const width = range.to - range.from;
    for (let row = 0; row < x.shape[0]!; row++) {
      into.data.set(data.subarray(row * width, (row + 1) * width), row * vocabulary + range.from);
    }
  }
}

/** Turns logits [rows, V] into log-probabilities, in place. */
export function normaliseRows({ data, shape }: F32Tensor): void {
  const width = shape[1]!;
  for (let start = 0; start < data.length; start += width) {
    const row = data.subarray(start, start + width);
    let top = Number.NEGATIVE_INFINITY;
    for (const value of row) if (value > top) top = value;
    let sum = 0;
    for (const value of row) sum += Math.exp(value - top);
    const z = top + Math.log(sum);
    for (let i = 0; i < width; i++) row[i]! -= z;
  }
}

/** Softmaxes of some rows, as their ranges come in. */
export interface TargetSums {
  /** Takes the next range of these rows x [size, H], of which the first `rows` count. */
  add(x: F32Tensor, range: VocabularyRange): Promise<void>;
  /** log p of each row's target. */
  targetLogProbs(): Float32Array;
}

export function sumTargets(parts: HeadParts, targets: ArrayLike<number>): TargetSums {
  const own = createSums(targets.length);
  return {
    async add(x, range) {
      const program = await parts.programs.targetSums(x.shape[0]!, range.to - range.from);
      const local = localTargets(targets, range, x.shape[0]!);
      const result = await program.run({ x, targets: local, ...(await headRows(parts.model, parts.weights, range)) });
      own.add(result, range, targets);
    },
    targetLogProbs: () => own.targetLogProbs(),
  };
}

/** Two models' softmaxes of some rows, as their ranges come in. */
export interface ComparedSums {
  /** As {@link TargetSums}, with the reference's logits of the range, [size, to - from]. */
  add(x: F32Tensor, reference: F32Tensor, range: VocabularyRange): Promise<void>;
  result(): { kl: Float32Array; own: Float32Array; reference: Float32Array };
}

export function sumCompared(parts: HeadParts, targets: ArrayLike<number>): ComparedSums {
  const rows = targets.length;
  const [own, theirs] = [createSums(rows), createSums(rows)];
  /** Sum of exp(r - top) (r - o), for the reference's `top`. */
  const weighted = new Float64Array(rows);
  return {
    async add(x, reference, range) {
      const program = await parts.programs.comparedSums(x.shape[0]!, range.to - range.from);
      const local = localTargets(targets, range, x.shape[0]!);
      const head = await headRows(parts.model, parts.weights, range);
      const result = await program.run({ x, reference, targets: local, ...head });
      own.add(result, range, targets);
      const cross = result.cross!.data as Float32Array;
      const tops = result.referenceTop!.data as Float32Array;
      for (let row = 0; row < rows; row++) {
        const before = theirs.at(row).top;
        const top = Math.max(before, tops[row]!);
        const old = weighted[row] === 0 ? 0 : weighted[row]! * Math.exp(before - top);
        weighted[row] = old + cross[row]! * Math.exp(tops[row]! - top);
      }
      theirs.add(
        { top: result.referenceTop!, sum: result.referenceSum!, target: result.referenceTarget! },
        range,
        targets,
      );
    },
    result() {
      const kl = Float32Array.from(weighted, (sum, row) => {
        return sum / theirs.at(row).sum - theirs.logSum(row) + own.logSum(row);
      });
      return { kl, own: own.targetLogProbs(), reference: theirs.targetLogProbs() };
    },
  };
}

/** The targets' places within a range; 0 for those outside of it and for padding. */
function localTargets(targets: ArrayLike<number>, { from, to }: VocabularyRange, size: number): HostTensor {
  return i64Tensor(
    [size],
    Array.from({ length: size }, (_, row) => {
      const id = targets[row] ?? -1;
      return id >= from && id < to ? id - from : 0;
    }),
  );
}

function createSums(rows: number) {
  const sums: Sum[] = Array.from({ length: rows }, () => ({ top: Number.NEGATIVE_INFINITY, sum: 0 }));
  const logits = new Float64Array(rows);
  const logSum = (row: number) => sums[row]!.top + Math.log(sums[row]!.sum);
  return {
    at: (row: number): Readonly<Sum> => sums[row]!,
    logSum,
    add(part: Record<string, HostTensor>, { from, to }: VocabularyRange, targets: ArrayLike<number>): void {
      const [top, sum, target] = [part.top!, part.sum!, part.target!].map(({ data }) => data as Float32Array);
      for (let row = 0; row < rows; row++) {
        sums[row] = join(sums[row]!, { top: top![row]!, sum: sum![row]! });
        if (targets[row]! >= from && targets[row]! < to) logits[row] = target![row]!;
      }
    },
    targetLogProbs: () => Float32Array.from(logits, (logit, row) => logit - logSum(row)),
  };
}

function join(a: Sum, b: Sum): Sum {
  const top = Math.max(a.top, b.top);
  return { top, sum: a.sum * Math.exp(a.top - top) + b.sum * Math.exp(b.top - top) };
}

/**
 * @module KL(parent || child) by sequence for several children at once. The reference's log-probabilities are computed
 * once for a few rows and serve all children, so logits exist for those rows only.
 */
import { createRng, EspalierError } from "../base/index.js";
import type { Engine } from "../engine/index.js";
import { type F32Tensor, f32Tensor } from "../tensor/index.js";
import type { Rows } from "./parts.js";

export interface CompareRowsOptions {
  /** Index of the first sequence in its text; the positions of a sequence depend on it alone. */
  first: number;
  /** Positions of a sequence that are compared. Defaults to all. */
  positions?: number | undefined;
  signal: AbortSignal;
}

/** Bytes of log-probabilities that are held at once. */
const heldBytes = 64 << 20;

/** Final hidden states of parent and children, [batch * length, H] each -> nats a token by child and sequence. */
export async function compareRows(
  engine: Engine,
  reference: Rows,
  children: readonly F32Tensor[],
  { first, positions, signal }: CompareRowsOptions,
): Promise<number[][]> {
  const rows = pickRows(reference, first, positions);
  const perRow = children.map(() => new Float32Array(rows.length));
  const step = rowsAtOnce(engine.config.vocabSize);
  for (let from = 0; from < rows.length; from += step) {
    signal.throwIfAborted();
    const some = rows.subarray(from, from + step);
    const held = await engine.holdReference(takeRows(reference.x, some), { maxBytes: heldBytes });
    for (const [i, x] of children.entries()) {
      const { kl } = await engine.compare(held, takeRows(x, some));
      perRow[i]!.set(kl, from);
    }
  }
  return perRow.map((values) => meansOf(values, reference.batch));
}

/** A power of two, so that few programs are needed. */
function rowsAtOnce(vocabSize: number): number {
  return 2 ** Math.max(4, Math.floor(Math.log2(heldBytes / 4 / vocabSize)));
}

/** The rows to compare: all, or `positions` a sequence, one drawn from each equal stretch. */
function pickRows({ batch, length }: Rows, first: number, positions = length): Int32Array {
  const rows = new Int32Array(batch * positions);
  for (let sequence = 0; sequence < batch; sequence++) {
    const rng = createRng(`positions ${first + sequence}`);
    for (let i = 0; i < positions; i++) {
      const start = Math.floor((i * length) / positions);
      const end = Math.floor(((i + 1) * length) / positions);
      rows[sequence * positions + i] = sequence * length + start + rng.int(end - start);
    }
  }
  return rows;
}

export function checkPositions(positions: number, length: number): void {
  if (Number.isInteger(positions) && positions >= 1 && positions <= length) return;
  throw new EspalierError({
    where: "scoring: positions",
    expected: `a whole number from 1 to the ${length} tokens of a sequence`,
    found: `${positions}`,
    exitCode: 2,
  });
}

function takeRows({ shape, data }: F32Tensor, rows: Int32Array): F32Tensor {
  const width = shape[1]!;
  const taken = f32Tensor([rows.length, width]);
  rows.forEach((row, i) => {
    taken.data.set(data.subarray(row * width, (row + 1) * width), i * width);
  });
  return taken;
}

/** Mean of each of `batch` equal runs of values, summed in float64. */
function meansOf(values: Float32Array, batch: number): number[] {
  const length = values.length / batch;
  return Array.from({ length: batch }, (_, i) => {
    let sum = 0;
    for (let t = 0; t < length; t++) sum += values[i * length + t]!;
    return sum / length;
  });
}

import { createRng, createRngFromState, EspalierError, type RngState } from "../base/index.js";
import type { Tensors } from "../runtime/index.js";
import { f32Tensor, i64Tensor } from "../tensor/index.js";

export interface Batch {
  /** Inputs that the loss declares for a batch. */
  feeds: Tensors;
  /** What the loss is averaged over, such as predicted tokens. */
  weight: number;
  /** Tokens read, for the rate that is reported. Defaults to `weight`. */
  tokens?: number;
}

/** Where batches come from. Its state is plain JSON, and says which batch comes next. */
export interface BatchSource {
  next(): Batch | Promise<Batch>;
  state(): unknown;
  restore(state: unknown): void;
}

interface OrderState {
  rng: RngState;
  /** Items taken from the current order. */
  taken: number;
}

/**
 * Batches over items of equal standing: each epoch visits every item once, in a new random order. The last items of an
 * epoch join the first of the next in one batch.
 */
export function shuffledBatches(
  items: number,
  { batch, seed }: { batch: number; seed: number | string },
  makeBatch: (chosen: readonly number[]) => Batch | Promise<Batch>,
): BatchSource {
  const indices = Array.from({ length: items }, (_, i) => i);
  let start = createRng(seed).state();
  let taken = 0;
  let order: number[] = [];
  let following = start;

  const shuffle = () => {
    const rng = createRngFromState(start);
    order = rng.shuffle(indices);
    following = rng.state();
  };
  const take = (): number => {
    if (taken === items) {
      start = following;
      taken = 0;
      shuffle();
    }
    return order[taken++]!;
  };
  shuffle();

  return {
    next: () => makeBatch(Array.from({ length: batch }, take)),
    state: (): OrderState => ({ rng: start, taken }),
    restore(state) {
      ({ rng: start, taken } = state as OrderState);
      shuffle();
    },
  };
}

/**
 * Windows of a long text for next-token prediction, without overlap: `ids` [B, T] and `targets` [B * T], one further.
 * @throws EspalierError when the text is shorter than one window
 */
export function textBatches(
  text: ArrayLike<number>,
  { batch, length, seed }: { batch: number; length: number; seed: number | string },
): BatchSource {
  const windows = Math.floor((text.length - 1) / length);
  if (windows < 1) {
    const expected = `${length + 1} tokens or more`;
    throw new EspalierError({ where: "training text", expected, found: `${text.length}`, fix: "give a longer text" });
  }
  return shuffledBatches(windows, { batch, seed }, (chosen) => {
    const ids = new BigInt64Array(batch * length);
    const targets = new BigInt64Array(batch * length);
    chosen.forEach((window, row) => {
      for (let i = 0; i < length; i++) {
        ids[row * length + i] = BigInt(text[window * length + i]!);
        targets[row * length + i] = BigInt(text[window * length + i + 1]!);
      }
    });
    const feeds = {
      ids: i64Tensor([batch, length], ids),
      targets: i64Tensor([batch * length], targets),
      weights: f32Tensor([batch * length], new Float32Array(batch * length).fill(1)),
    };
    return { feeds, weight: batch * length };
  });
}

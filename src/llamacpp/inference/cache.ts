/** @module What the key/value cache of one sequence holds. */
import type { NativeContext } from "../native-context.js";

export interface SequenceCache {
  readonly sequence: number;
  /** Ids whose keys and values are held, in order. */
  readonly ids: readonly number[];
  /** Tokens at the beginning that are the same. */
  common(ids: readonly number[]): number;
  /** Forgets all but the first `length` tokens, or everything where the cache cannot; gives back what is left. */
  cut(length: number): number;
  /** Notes tokens that a batch has evaluated. */
  append(ids: readonly number[]): void;
}

export function createSequenceCache(ctx: NativeContext, sequence: number): SequenceCache {
  const ids: number[] = [];
  return {
    sequence,
    ids,
    common(others) {
      let length = 0;
      while (length < ids.length && length < others.length && ids[length] === others[length]) length++;
      return length;
    },
    cut(length) {
      if (length >= ids.length) return ids.length;
      // A sliding window has let go of the beginning, and a recurrent state cannot be cut: both start over.
      const whole = length > 0 && ctx.getSequenceKvCacheMinPosition(sequence) === 0;
      if (!whole || !ctx.removeTokenCellsFromSequence(sequence, length, -1)) {
        ctx.disposeSequence(sequence);
        ids.length = 0;
      } else ids.length = length;
      return ids.length;
    },
    append(more) {
      for (const id of more) ids.push(id);
    },
  };
}

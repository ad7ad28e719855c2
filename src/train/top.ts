/** The best tokens of one distribution, best first. */
export interface TopTokens {
  ids: Int32Array;
  /** Among all tokens, in nats. */
  logProbs: Float32Array;
}

/**
 * The K largest logits as log-probabilities at a temperature; of equal ones that with the smaller id.
 *
 * @param logits [V], K at most
 */
export function topOf(logits: Float32Array, k: number, temperature = 1): TopTokens {
  const ids = new Int32Array(k);
  const values = new Float64Array(k).fill(Number.NEGATIVE_INFINITY);
  let largest = Number.NEGATIVE_INFINITY;
  for (let id = 0; id < logits.length; id++) {
    const value = logits[id]!;
    if (value > largest) largest = value;
    if (value <= values[k - 1]!) continue;
    let at = k - 1;
    for (; at > 0 && value > values[at - 1]!; at--) {
      values[at] = values[at - 1]!;
      ids[at] = ids[at - 1]!;
    }
    values[at] = value;
    ids[at] = id;
  }
  let sum = 0;
  for (const value of logits) sum += Math.exp((value - largest) / temperature);
  return { ids, logProbs: Float32Array.from(values, (value) => (value - largest) / temperature - Math.log(sum)) };
}

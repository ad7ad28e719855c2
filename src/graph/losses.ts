import type { GraphCore, GraphMethods } from "./builder.js";
import type { Value } from "./types.js";

type Builder = GraphCore & GraphMethods;

export interface CrossEntropyOptions {
  /** Positions whose logits exist at one time. Defaults to as many as keep them under 64 MiB. */
  chunk?: number;
  /** f32 scalar that the weighted sum is divided by. Defaults to the sum of the weights. */
  denominator?: Value;
}

export interface KlDivergenceOptions extends CrossEntropyOptions {
  /** Both sets of logits are divided by it (the result is not multiplied by its square). Defaults to 1. */
  temperature?: number;
}

/** Hidden states and the matrix that turns them into logits. */
export interface LanguageHead {
  /** [N, H] */
  hidden: Value;
  /** [V, H] */
  head: Value;
}

const chunkBytes = 64 * 2 ** 20;
/** Probabilities below it count as it, so that a loss of more than 85 nats a position is reported as 85. */
const smallestProbability = 1e-37;

/** Losses over a large vocabulary that hold the logits of one chunk of positions at a time. */
export function createLosses(g: Builder) {
  return {
    /**
     * Weighted mean of -log softmax(hidden head^T)[target].
     *
     * The gradients are computed in the forward sweep, while a chunk's probabilities exist, and attached with
     * `withGradient`; without a backward pass they are dead code.
     *
     * @param targets i64 [N]
     * @param weights f32 [N]; positions with weight 0 are not chosen (their targets must still be valid ids)
     */
    crossEntropy(hidden: Value, head: Value, targets: Value, weights: Value, options: CrossEntropyOptions = {}): Value {
      const share = g.div(weights, options.denominator ?? g.sum(weights)); // [N]
      const sums = createSums(g, head);
      for (const [from, to] of chunksOf(hidden, head, options.chunk)) {
        const x = g.slice(hidden, 0, from, to); // [C, H]
        const ids = g.slice(targets, 0, from, to); // [C]
        const w = g.slice(share, 0, from, to); // [C]
        const p = g.softmax(g.linear(x, head)); // [C, V]
        sums.addLoss(g.neg(logOf(g, g.gatherLast(p, ids))), w);
        // d loss / d logits = (p - onehot) w. The one-hot part is two lookups of rows, so nothing is done to p.
        sums.addGradient(p, x, w, g.gather(head, ids));
      }
      const targetRows = g.neg(g.mul(hidden, g.reshape(share, [-1, 1]))); // [N, H]
      return g.withGradient(sums.loss(), [
        [hidden, sums.hiddenGradient()],
        [head, g.scatterAdd(sums.headGradient(), targets, targetRows)],
      ]);
    },

    /**
     * Weighted mean of KL(teacher || student) of the next-token distributions; gradients reach the student alone.
     *
     * @param weights f32 [N]
     */
    klDivergence(
      student: LanguageHead,
      teacher: LanguageHead,
      weights: Value,
      { temperature = 1, ...options }: KlDivergenceOptions = {},
    ): Value {
      const share = g.div(weights, options.denominator ?? g.sum(weights)); // [N]
      const sums = createSums(g, student.head);
      const product = { transposeB: true, alpha: 1 / temperature };
      for (const [from, to] of chunksOf(student.hidden, student.head, options.chunk)) {
        const x = g.slice(student.hidden, 0, from, to); // [C, H]
        const logits = g.matmul(x, student.head, product); // [C, V]
        const teacherLogits = g.matmul(g.slice(teacher.hidden, 0, from, to), teacher.head, product);
        const p = g.softmax(teacherLogits);
        const q = g.softmax(logits);
        const w = g.slice(share, 0, from, to); // [C]
        sums.addLoss(divergence(g, { p, q, difference: g.sub(teacherLogits, logits) }), w);
        sums.addGradient(g.sub(q, p), x, g.scale(w, 1 / temperature));
      }
      return g.withGradient(sums.loss(), [
        [student.hidden, sums.hiddenGradient()],
        [student.head, sums.headGradient()],
      ]);
    },
  };
}

/**
 * KL(p || q) of each row, [C]. With d = difference of the logits it is sum p d - (log Zp - log Zq), and the normalisers
 * follow from one entry, log Zp - log Zq = d_i - log(p_i / q_i); i = argmax p, where nothing underflows. So no pass
 * over the vocabulary takes a logarithm.
 */
function divergence(g: Builder, { p, q, difference }: { p: Value; q: Value; difference: Value }): Value {
  const top = g.argMax(p); // [C]
  const logRatio = g.sub(logOf(g, g.gatherLast(p, top)), logOf(g, g.gatherLast(q, top)));
  const expected = g.sum(g.mul(p, difference), { axes: [1] });
  return g.add(g.sub(expected, g.gatherLast(difference, top)), logRatio);
}

function logOf(g: Builder, probability: Value): Value {
  return g.log(g.clip(probability, smallestProbability, 1));
}

/** Running sums over chunks: the loss, the head's gradient, and the rows of the hidden gradient. */
function createSums(g: Builder, head: Value) {
  let loss: Value | undefined;
  let headGradient: Value | undefined;
  const rows: Value[] = [];
  return {
    addLoss(perPosition: Value, weights: Value): void {
      const term = g.sum(g.mul(perPosition, weights));
      loss = loss ? g.add(loss, term) : term;
    },
    /**
     * `slope` [C, V] times `weights` [C] is the gradient of the logits, which x [C, H] made. The weights ride on the
     * narrow side of both products; `minus` [C, H] is taken from the gradient of x before them.
     */
    addGradient(slope: Value, x: Value, weights: Value, minus?: Value): void {
      const column = g.reshape(weights, [weights.shape[0]!, 1]);
      const pulled = g.matmul(slope, head);
      rows.push(g.mul(minus ? g.sub(pulled, minus) : pulled, column));
      const weighted = g.mul(x, column);
      headGradient = headGradient
        ? g.gemm(slope, weighted, headGradient, { transposeA: true })
        : g.matmul(slope, weighted, { transposeA: true });
    },
    loss: () => loss!,
    hiddenGradient: () => g.concat(rows, 0),
    headGradient: () => headGradient!,
  };
}

/** Chunks of nearly equal length, as [from, to) pairs. */
function chunksOf(hidden: Value, head: Value, chunk?: number): [from: number, to: number][] {
  const positions = hidden.shape[0]!;
  const most = chunk ?? Math.max(1, Math.floor(chunkBytes / (4 * head.shape[0]!)));
  const size = Math.ceil(positions / Math.ceil(positions / most));
  return Array.from({ length: Math.ceil(positions / size) }, (_, i) => [i * size, Math.min(positions, (i + 1) * size)]);
}

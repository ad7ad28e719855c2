import type { GraphCore, GraphMethods } from "./builder.js";
import type { Value } from "./types.js";

type Builder = GraphCore & GraphMethods;

export interface ChunkOptions {
  /**
   * Positions whose logits exist at one time. Defaults to as many as keep them within 128 MiB (64 MiB for each of the
   * four tensors of a divergence): products are faster the more rows they have.
   */
  chunk?: number;
  /** f32 scalar that the weighted sum is divided by. Defaults to the sum of the weights. */
  denominator?: Value;
}

export interface CrossEntropyOptions extends ChunkOptions {
  /** Entries of the vocabulary that are worked on at a time. Defaults to a tile of logits of 4 MiB. */
  tile?: number;
}

export interface TokenLogProbOptions extends Pick<CrossEntropyOptions, "chunk" | "tile"> {}

export interface TokenLogProbs {
  /** log softmax(hidden head^T)[target], [N]; differentiable. */
  logProbs: Value;
  /** Entropy of the whole distribution at each position in nats, [N]; no gradient. */
  entropy: Value;
}

export interface KlDivergenceOptions extends ChunkOptions {
  /** Both sets of logits are divided by it (the result is not multiplied by its square). Defaults to 1. */
  temperature?: number;
}

export interface HeadGradientOptions {
  /** Log of each position's normaliser, [N, 1]. */
  logSum: Value;
  /** i64 [N] */
  targets: Value;
  /** Slope of the loss at each log-probability, [N, 1]. */
  upstream: Value;
  chunk: number;
  tile: number;
}

/** Hidden states and the matrix that turns them into logits. */
export interface LanguageHead {
  /** [N, H] */
  hidden: Value;
  /** [V, H] */
  head: Value;
}

const chunkBytes = 128 * 2 ** 20;
/** Logits of one tile of the vocabulary: what stays in a cache between the operations on it. */
const tileBytes = 4 * 2 ** 20;
/** Probabilities below it count as it in the value of a divergence, so that no term of it exceeds 85 nats. */
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
      const share = g.reshape(g.div(weights, options.denominator ?? g.sum(weights)), [-1, 1]); // [N, 1]
      const chunks = chunksOf(hidden, head, options.chunk);
      const tiles = tilesOf(head, chunks[0]![1], options.tile).map(([from, to]) => g.slice(head, 0, from, to)); // [Vt, H] each
      const sums = createSums(g, tiles.length);
      for (const [from, to] of chunks) {
        const x = sums.next(g.slice(hidden, 0, from, to)); // [C, H]
        const w = g.slice(share, 0, from, to); // [C, 1]
        const { p, scales, logSum, expected } = tiledSoftmax(g, x, tiles);
        const target = g.gather(head, g.slice(targets, 0, from, to)); // [C, H]
        const logit = g.sum(g.mul(x, target), { axes: [1], keepDims: true }); // [C, 1]
        sums.addLoss(g.sum(g.mul(g.sub(logSum, logit), w)));
        // d loss / d logits = (p - onehot) w. The one-hot part is two lookups of rows; the weights and the tiles'
        // scales ride on the narrow side of the products. So nothing is done to p.
        sums.addHidden(g.mul(g.sub(expected, target), w));
        p.forEach((tile, t) => {
          sums.addHead(t, tile, g.mul(x, g.mul(w, scales[t]!)));
        });
      }
      const targetRows = g.neg(g.mul(hidden, share)); // [N, H]
      return g.withGradient(sums.loss(), [
        [hidden, sums.hiddenGradient()],
        [head, g.scatterAdd(sums.headGradient(), targets, targetRows)],
      ]);
    },

    /**
     * log softmax(hidden head^T)[target] of each position, as a value that losses may be built on.
     *
     * The forward sweep keeps, for each position, the target's row of the head minus the mean row under its
     * probabilities, [N, H]: the hidden states' gradient is that times the loss's slope, and nothing is computed twice
     * while the head is frozen. A trained head's gradient computes the logits again, tile by tile.
     *
     * @param hidden [N, H]
     * @param head [V, H]
     * @param targets i64 [N]
     */
    tokenLogProbs(hidden: Value, head: Value, targets: Value, options: TokenLogProbOptions = {}): TokenLogProbs {
      const chunks = chunksOf(hidden, head, options.chunk);
      const ranges = tilesOf(head, chunks[0]![1], options.tile);
      const tiles = ranges.map(([from, to]) => g.slice(head, 0, from, to)); // [Vt, H] each
      const parts: { values: Value; entropy: Value; slope: Value; logSum: Value }[] = [];
      for (const [from, to] of chunks) {
        const done = parts.slice(-1).flatMap(({ values, slope }) => [values, slope]);
        const x = g.after(g.slice(hidden, 0, from, to), done); // [C, H]
        const { logSum, expected } = tiledSoftmax(g, x, tiles);
        const target = g.gather(head, g.slice(targets, 0, from, to)); // [C, H]
        const dot = (rows: Value) => g.sum(g.mul(x, rows), { axes: [1], keepDims: true }); // [C, 1]
        const values = g.reshape(g.sub(dot(target), logSum), [-1]);
        const entropy = g.reshape(g.sub(logSum, dot(expected)), [-1]);
        parts.push({ values, entropy, slope: g.sub(target, expected), logSum });
      }
      const joined = (of: "values" | "entropy" | "slope" | "logSum") =>
        g.concat(
          parts.map((part) => part[of]),
          0,
        );
      const operands = [joined("values"), hidden, head, joined("slope"), joined("logSum"), targets];
      const sizes = { chunk: chunks[0]![1], tile: ranges[0]![1] };
      return {
        logProbs: g.apply("headLogProbs", operands, sizes)[0]!,
        entropy: g.stopGradient(joined("entropy")),
      };
    },

    /** Gradient of a head [V, H] for `headLogProbs`: the sum of upstream (onehot - p)^T hidden over all positions. */
    headGradient(hidden: Value, head: Value, of: HeadGradientOptions): Value {
      const ranges = rangesOf(head.shape[0]!, of.tile);
      const sums = createSums(g, ranges.length);
      for (const [from, to] of rangesOf(hidden.shape[0]!, of.chunk)) {
        const x = sums.next(g.slice(hidden, 0, from, to)); // [C, H]
        const pulled = g.neg(g.mul(x, g.slice(of.upstream, 0, from, to)));
        const logSum = g.slice(of.logSum, 0, from, to); // [C, 1]
        for (const [t, [first, last]] of ranges.entries()) {
          // One tile after the other.
          const ordered = t === 0 ? x : g.after(x, sums.headPart(t - 1));
          const logits = g.linear(ordered, g.slice(head, 0, first, last)); // [C, Vt]
          sums.addHead(t, g.exp(g.sub(logits, logSum)), pulled);
        }
      }
      return g.scatterAdd(sums.headGradient(), of.targets, g.mul(hidden, of.upstream));
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
      const share = g.reshape(g.div(weights, options.denominator ?? g.sum(weights)), [-1, 1]); // [N, 1]
      const sums = createSums(g, 1);
      const product = { transposeB: true, alpha: 1 / temperature };
      for (const [from, to] of chunksOf(student.hidden, student.head, options.chunk, 2)) {
        const x = sums.next(g.slice(student.hidden, 0, from, to)); // [C, H]
        const teacherX = sums.next(g.slice(teacher.hidden, 0, from, to)); // [C, H']
        const w = g.slice(share, 0, from, to); // [C, 1]
        const logits = g.matmul(x, student.head, product); // [C, V]
        const teacherLogits = g.matmul(teacherX, teacher.head, product);
        const [p, q] = [g.softmax(teacherLogits), g.softmax(logits)];
        sums.addLoss(g.sum(g.mul(divergence(g, { p, q, difference: g.sub(teacherLogits, logits) }), w)));
        const slope = g.sub(q, p);
        const column = g.scale(w, 1 / temperature);
        sums.addHidden(g.mul(g.matmul(slope, student.head), column));
        sums.addHead(0, slope, g.mul(x, column));
      }
      return g.withGradient(sums.loss(), [
        [student.hidden, sums.hiddenGradient()],
        [student.head, sums.headGradient()],
      ]);
    },
  };
}

/**
 * The softmax of x head^T over all tiles [Vt, H] of the head, held as one softmax a tile: probabilities are
 * `p[t] scales[t]`. A tile's logits [C, Vt] stay in the cache from the product that makes them to the one that reads
 * them, where a full row of the vocabulary would not, and products with small results run at twice the rate.
 *
 * A tile's logsumexp follows from its largest logit and that one's probability, which cannot underflow.
 */
function tiledSoftmax(g: Builder, x: Value, tiles: readonly Value[]) {
  const largest = (value: Value) => g.max(value, { axes: [1], keepDims: true });
  const logits = tiles.map((rows) => g.linear(x, rows)); // [C, Vt]
  const p = logits.map((tile) => g.softmax(tile));
  const pulled = p.map((tile, t) => g.matmul(tile, tiles[t]!)); // [C, H]
  const logSums = p.map((tile, t) => {
    const logSum = g.sub(largest(logits[t]!), g.log(largest(tile))); // [C, 1]
    return g.after(logSum, [pulled[t]!]); // one tile after the other
  });
  const peak = logSums.reduce((a, b) => g.maximum(a, b));
  const factors = logSums.map((logSum) => g.exp(g.sub(logSum, peak)));
  const total = factors.reduce((a, b) => g.add(a, b));
  const scales = factors.map((factor) => g.div(factor, total));
  return {
    p,
    scales,
    /** Of the whole vocabulary, [C, 1]. */
    logSum: g.add(peak, g.log(total)),
    /** Mean row of the head under the probabilities, [C, H]. */
    expected: pulled.map((rows, t) => g.mul(rows, scales[t]!)).reduce((a, b) => g.add(a, b)),
  };
}

/** Running sums over chunks: the loss, the head's gradient (a part for each tile), the rows of the hidden gradient. */
function createSums(g: Builder, tiles: number) {
  const losses: Value[] = [];
  const rows: Value[] = [];
  const head: Value[] = Array(tiles);
  const done = () => [...losses.slice(-1), ...rows.slice(-1), ...head.filter(() => true)];
  return {
    /** What belongs to a chunk, to be used when the chunk before is done with: its logits are free then. */
    next: (x: Value) => g.after(x, done()),
    addLoss(term: Value): void {
      losses.push(losses.length === 0 ? term : g.add(losses.at(-1)!, term));
    },
    /** The hidden gradient of the next chunk, [C, H]. */
    addHidden(gradient: Value): void {
      rows.push(gradient);
    },
    /** Adds slope [C, Vt]^T x [C, H]. */
    addHead(tile: number, slope: Value, x: Value): void {
      const sum = head[tile];
      head[tile] = sum ? g.gemm(slope, x, sum, { transposeA: true }) : g.matmul(slope, x, { transposeA: true });
    },
    headPart: (tile: number) => head.slice(tile, tile + 1),
    loss: () => losses.at(-1)!,
    hiddenGradient: () => g.after(g.concat(rows, 0), done()),
    headGradient: () => g.concat(head, 0),
  };
}

/**
 * KL(p || q) of each row, [C, 1]. With d = difference of the logits it is sum p d - (log Zp - log Zq), and the
 * normalisers follow from one entry, log Zp - log Zq = d_i - log(p_i / q_i); i = argmax p, where nothing underflows. So
 * no pass over the vocabulary takes a logarithm.
 */
function divergence(g: Builder, { p, q, difference }: { p: Value; q: Value; difference: Value }): Value {
  const top = g.argMax(p); // [C]
  const entry = (x: Value) => g.reshape(g.gatherLast(x, top), [-1, 1]);
  const logOf = (probability: Value) => g.log(g.clip(probability, smallestProbability, 1));
  const logRatio = g.sub(logOf(entry(p)), logOf(entry(q)));
  const expected = g.sum(g.mul(p, difference), { axes: [1], keepDims: true });
  return g.add(g.sub(expected, entry(difference)), logRatio);
}

/** Chunks of nearly equal length, as [from, to) pairs; `copies` sets of logits share the memory. */
function chunksOf(hidden: Value, head: Value, chunk?: number, copies = 1): [from: number, to: number][] {
  const positions = hidden.shape[0]!;
  const most = chunk ?? Math.max(1, Math.floor(chunkBytes / copies / (4 * head.shape[0]!)));
  return rangesOf(positions, Math.ceil(positions / Math.ceil(positions / most)));
}

/** Tiles of the vocabulary; their size is a multiple of what a product's inner kernel takes at a time. */
function tilesOf(head: Value, positions: number, tile?: number): [from: number, to: number][] {
  const vocabulary = head.shape[0]!;
  if (tile !== undefined) return rangesOf(vocabulary, tile);
  const count = Math.ceil((4 * positions * vocabulary) / tileBytes);
  return rangesOf(vocabulary, Math.max(512, Math.ceil(vocabulary / count / 64) * 64));
}

function rangesOf(length: number, size: number): [from: number, to: number][] {
  return Array.from({ length: Math.ceil(length / size) }, (_, i) => [i * size, Math.min(length, (i + 1) * size)]);
}

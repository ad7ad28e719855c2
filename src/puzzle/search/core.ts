/**
 * @module Exact search of what a linear relaxation leaves open, for one choice per layer.
 *
 * With the prices p >= 0 of the relaxation, every feasible selection x has
 *   objective(x) = bound + sum of reduced costs r(x) + sum over constraints of p_k * slack_k(x),
 * all terms >= 0 but the bound. So the selections within g of the bound are those whose reduced costs and priced slack
 * sum to at most g. They are counted out from two halves of the layers: the partial selections of one half with
 * r <= g / 2 are stored in a grid, those of the other with r <= g are walked through, and each looks up the partners
 * that leave almost no slack (a small box of the grid); then the halves change places. If something is found, the best
 * of it is optimal; if not, g grows. This closes in seconds the gaps of 0.02 % on which branch and bound spends hours,
 * because there a huge number of near-optimal selections share the same branches. Counting out a core is Balas and
 * Zemel's idea (1980), the halves are Horowitz and Sahni's (1974).
 */
export interface CoreProblem {
  /** Choices of each layer, as indices into the arrays below. */
  layers: readonly (readonly number[])[];
  objective: ArrayLike<number>;
  constraints: readonly { values: ArrayLike<number>; limit: number; tolerance: number }[];
  /** What one unit of each constraint's limit saves in the relaxation, >= 0. */
  prices: readonly number[];
}

export interface CoreOptions {
  /** Objective of a known selection; Infinity if there is none. */
  incumbent: number;
  /** Give up above this many stored partial selections. Defaults to 4 million (about 200 MB). */
  maxEntries?: number;
  /** Give up after this many seconds. */
  limitSeconds?: number;
}

/** `selection`: better than the incumbent and optimal. `incumbent`: nothing is better. `unknown`: gave up. */
export type CoreResult = { found: "selection"; selection: number[] } | { found: "incumbent" } | { found: "unknown" };

export function searchCore(problem: CoreProblem, options: CoreOptions): CoreResult {
  const { incumbent, maxEntries = 4_000_000, limitSeconds = Number.POSITIVE_INFINITY } = options;
  if (problem.prices.every((price) => price <= 0)) return { found: "unknown" };
  const deadline = performance.now() + 1000 * limitSeconds;
  const reduced = reduce(problem);
  const room = incumbent - reduced.bound;
  for (let gap = firstGap(reduced, room); ; ) {
    const best: Best = { total: gap, selection: undefined, visited: 0 };
    for (const stored of [0, 1] as const) {
      const entries = enumerate(reduced, stored, gap / 2, maxEntries);
      if (!entries || !pairUp(reduced, entries, stored, best, deadline)) return { found: "unknown" };
    }
    if (best.selection) return { found: "selection", selection: best.selection };
    if (gap >= room) return { found: "incumbent" };
    // The work grows exponentially with the root of the gap: big steps while it is cheap, small ones after.
    gap = Math.min(room, gap * (best.visited < 300_000 ? 1.5 : 1.15));
  }
}

interface Best {
  /** Least sum of reduced costs and priced slack so far; nothing at or above it is of interest. */
  total: number;
  selection: number[] | undefined;
  /** Partial selections walked through. */
  visited: number;
}

/** The problem relative to the selection of least reduced cost in every layer. */
interface Reduced {
  bound: number;
  base: number[];
  /** Two halves of the layers; in each, for each layer, what to deviate to, cheapest first. */
  halves: [Deviation[][], Deviation[][]];
  /** Slack of the base selection in each constraint; may be negative. */
  slack: number[];
  tolerance: number[];
  prices: readonly number[];
}

interface Deviation {
  layer: number;
  choice: number;
  /** Reduced cost above the base. */
  cost: number;
  /** Change of each constraint's sum. */
  change: number[];
}

function reduce({ layers, objective, constraints, prices }: CoreProblem): Reduced {
  const priced = (choice: number) =>
    constraints.reduce((sum, { values }, k) => sum + prices[k]! * values[choice]!, objective[choice]!);
  const base = layers.map((choices) => choices.reduce((a, b) => (priced(b) < priced(a) ? b : a)));
  const slack = constraints.map(({ values, limit }) => base.reduce((sum, choice) => sum - values[choice]!, limit));
  const deviations = layers.map((choices, layer) =>
    choices
      .filter((choice) => choice !== base[layer])
      .map((choice) => ({
        layer,
        choice,
        cost: priced(choice) - priced(base[layer]!),
        change: constraints.map(({ values }) => values[choice]! - values[base[layer]!]!),
      }))
      .sort((a, b) => a.cost - b.cost),
  );
  // Dealt out by the cheapest deviation, so that both halves hold about as many partial selections.
  const order = deviations.filter((list) => list.length > 0).sort((a, b) => a[0]!.cost - b[0]!.cost);
  const bound = base.reduce((sum, choice) => sum + priced(choice), 0);
  return {
    bound: constraints.reduce((sum, { limit }, k) => sum - prices[k]! * limit, bound),
    base,
    halves: [order.filter((_, i) => i % 2 === 0), order.filter((_, i) => i % 2 === 1)],
    slack,
    tolerance: constraints.map(({ tolerance }) => tolerance),
    prices,
  };
}

/** Small enough that the first lists are short: a gap at which about one deviation a layer comes into play. */
function firstGap({ halves }: Reduced, room: number): number {
  const lists = halves.flat();
  const cheapest = lists.map((list) => list[0]!.cost).sort((a, b) => a - b);
  const dearest = lists.reduce((most, list) => Math.max(most, list.at(-1)!.cost), Number.MIN_VALUE);
  // Ties of the relaxation cost nothing; a gap of nothing would never grow.
  return Math.min(room, Math.max(cheapest[cheapest.length >> 1] ?? 0, 1e-6 * dearest));
}

/** Partial selections of one half, as columns; entry 0 deviates nowhere. */
interface Entries {
  count: number;
  cost: Float64Array;
  /** By constraint. */
  change: Float64Array[];
  /** The entry that this one extends. */
  parent: Int32Array;
  deviations: Deviation[];
  /** Index into `deviations`. */
  last: Int32Array;
}

/** All partial selections with reduced costs of at most `gap`, or undefined when there are more than `most`. */
function enumerate({ halves, slack }: Reduced, half: 0 | 1, gap: number, most: number): Entries | undefined {
  const layers = halves[half];
  const entries = createEntries(layers.flat(), slack.length);
  const offsets = layers.map((_, at) => layers.slice(0, at).reduce((sum, { length }) => sum + length, 0));
  const position = Int32Array.from(layers.flatMap((list, at) => list.map(() => at)));
  for (let entry = 0; entry < entries.count; entry++) {
    const left = gap - entries.cost[entry]!;
    const from = entry === 0 ? 0 : position[entries.last[entry]!]! + 1;
    for (let at = from; at < layers.length; at++) {
      const list = layers[at]!;
      // Layers stand in the order of their cheapest deviation: no later one fits either.
      if (list[0]!.cost > left) break;
      for (let i = 0; i < list.length && list[i]!.cost <= left; i++) {
        if (entries.count >= most) return undefined;
        append(entries, entry, offsets[at]! + i);
      }
    }
  }
  return entries;
}

function createEntries(deviations: Deviation[], constraints: number): Entries {
  const size = 1024;
  return {
    count: 1,
    cost: new Float64Array(size),
    change: Array.from({ length: constraints }, () => new Float64Array(size)),
    parent: new Int32Array(size).fill(-1),
    deviations,
    last: new Int32Array(size).fill(-1),
  };
}

function append(entries: Entries, parent: number, index: number): void {
  const at = entries.count++;
  if (at === entries.cost.length) grow(entries);
  const deviation = entries.deviations[index]!;
  entries.cost[at] = entries.cost[parent]! + deviation.cost;
  for (let k = 0; k < entries.change.length; k++) {
    entries.change[k]![at] = entries.change[k]![parent]! + deviation.change[k]!;
  }
  entries.parent[at] = parent;
  entries.last[at] = index;
}

function grow(entries: Entries): void {
  const double = <T extends Float64Array | Int32Array>(from: T, to: T): T => {
    to.set(from);
    return to;
  };
  const size = 2 * entries.cost.length;
  entries.cost = double(entries.cost, new Float64Array(size));
  entries.change = entries.change.map((column) => double(column, new Float64Array(size)));
  entries.parent = double(entries.parent, new Int32Array(size));
  entries.last = double(entries.last, new Int32Array(size));
}

/**
 * Walks through the partial selections of the half that is not stored and looks up what completes them; false when time
 * runs out.
 */
function pairUp(reduced: Reduced, entries: Entries, stored: 0 | 1, best: Best, deadline: number): boolean {
  const layers = reduced.halves[1 - stored]!;
  const count = reduced.slack.length;
  const lookUp = createLookUp(reduced, entries, best);
  // Remaining slack at each depth of the walk, and the deviations that led there.
  const slack = new Float64Array((layers.length + 1) * count);
  slack.set(reduced.slack);
  const path: Deviation[] = [];
  let inTime = true;

  const walk = (from: number, cost: number): void => {
    const base = path.length * count;
    if (best.visited++ % 4096 === 0) inTime = performance.now() < deadline;
    lookUp(slack.subarray(base, base + count), cost, path);
    for (let at = from; at < layers.length && inTime; at++) {
      const list = layers[at]!;
      // Layers stand in the order of their cheapest deviation: no later one fits either.
      if (cost + list[0]!.cost >= best.total) break;
      for (let i = 0; i < list.length && cost + list[i]!.cost < best.total; i++) {
        const deviation = list[i]!;
        for (let k = 0; k < count; k++) slack[base + count + k] = slack[base + k]! - deviation.change[k]!;
        path.push(deviation);
        walk(at + 1, cost + deviation.cost);
        path.pop();
      }
    }
  };
  walk(0, 0);
  return inTime;
}

/** Finds the stored partner that completes a partial selection best, given the slack that it leaves. */
function createLookUp(
  reduced: Reduced,
  entries: Entries,
  best: Best,
): (slack: Float64Array, cost: number, path: readonly Deviation[]) => void {
  const { tolerance, prices } = reduced;
  const [first, second] = sharpest(entries, prices, best.total);
  const grid = createGrid(entries, first, second, best.total, prices);
  const count = prices.length;
  return (slack, cost, path) => {
    const room = best.total - cost;
    const highFirst = slack[first]! + tolerance[first]!;
    const highSecond = slack[second]! + tolerance[second]!;
    const rowEnd = grid.row(highFirst);
    const columnStart = grid.column(highSecond - room / prices[second]!);
    const columnEnd = grid.column(highSecond);
    for (let row = grid.row(highFirst - room / prices[first]!); row <= rowEnd; row++) {
      for (let cell = row * grid.columns + columnStart; cell <= row * grid.columns + columnEnd; cell++) {
        const end = grid.starts[cell + 1]!;
        for (let i = grid.starts[cell]!; i < end; i++) {
          const entry = grid.order[i]!;
          let total = cost + entries.cost[entry]!;
          // Within a cell the cheapest come first.
          if (total >= best.total) break;
          for (let k = 0; k < count; k++) {
            const rest = slack[k]! - entries.change[k]![entry]!;
            total += rest < -tolerance[k]! ? Number.POSITIVE_INFINITY : prices[k]! * rest;
          }
          if (total >= best.total) continue;
          best.total = total;
          best.selection = rebuild(reduced, entries, entry, path);
        }
      }
    }
  };
}

/** The two constraints whose slack is confined most, compared with how far the entries spread (the same one twice if only one has a price). */
function sharpest(entries: Entries, prices: readonly number[], gap: number): [number, number] {
  const cells = prices.map((price, k) =>
    price > 0 ? (spread(entries.change[k]!, entries.count)[1] * price) / gap : -1,
  );
  const order = cells.map((_, k) => k).filter((k) => cells[k]! >= 0);
  order.sort((a, b) => cells[b]! - cells[a]!);
  return [order[0]!, order[1] ?? order[0]!];
}

function spread(values: Float64Array, count: number): [low: number, width: number] {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < count; i++) {
    if (values[i]! < low) low = values[i]!;
    if (values[i]! > high) high = values[i]!;
  }
  return [low, high - low];
}

interface Grid {
  columns: number;
  row(value: number): number;
  column(value: number): number;
  /** Entries of cell c: order[starts[c]] to order[starts[c + 1] - 1]. */
  starts: Int32Array;
  order: Int32Array;
}

const mostCellsPerSide = 2048;

function createGrid(entries: Entries, first: number, second: number, gap: number, prices: readonly number[]): Grid {
  const row = createScale(entries, first, gap / prices[first]!);
  const column = first === second ? { cells: 1, of: () => 0 } : createScale(entries, second, gap / prices[second]!);
  const cell = (entry: number) =>
    row.of(entries.change[first]![entry]!) * column.cells + column.of(entries.change[second]![entry]!);
  const starts = new Int32Array(row.cells * column.cells + 1);
  for (let entry = 0; entry < entries.count; entry++) starts[cell(entry) + 1]!++;
  for (let c = 0; c < row.cells * column.cells; c++) starts[c + 1]! += starts[c]!;
  const next = starts.slice();
  const order = new Int32Array(entries.count);
  const cheapestFirst = Uint32Array.from({ length: entries.count }, (_, i) => i);
  cheapestFirst.sort((a, b) => entries.cost[a]! - entries.cost[b]!);
  for (const entry of cheapestFirst) order[next[cell(entry)]!++] = entry;
  return { columns: column.cells, row: row.of, column: column.of, starts, order };
}

/** Cells of about `width` over the range of one column, values outside going to the ends. */
function createScale(entries: Entries, k: number, width: number): { cells: number; of: (value: number) => number } {
  const [low, range] = spread(entries.change[k]!, entries.count);
  const cells = Math.max(1, Math.min(mostCellsPerSide, Math.floor(range / width)));
  const perUnit = range > 0 ? cells / range : 0;
  return { cells, of: (value) => Math.max(0, Math.min(cells - 1, Math.floor((value - low) * perUnit))) };
}

function rebuild(reduced: Reduced, entries: Entries, entry: number, path: readonly Deviation[]): number[] {
  const selection = [...reduced.base];
  for (const { layer, choice } of path) selection[layer] = choice;
  for (let at = entry; at > 0; at = entries.parent[at]!) {
    const { layer, choice } = entries.deviations[entries.last[at]!]!;
    selection[layer] = choice;
  }
  return selection;
}

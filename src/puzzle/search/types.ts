/** What one choice costs and how well it scores; names are free text. */
export interface Variant {
  /** Costs, such as memory_mib or runtime_ms: a child's cost is the sum over its choices. */
  stats: Record<string, number>;
  /** Scores, such as kl_div: summed as well. */
  metrics: Record<string, number>;
  /**
   * The layers that this choice replaces together, its own among them (fused feed-forwards, one block for several).
   * Defaults to the layer it is listed under.
   */
  layers?: string[];
}

/** Block library: layer -> variant -> costs and scores. */
export type Library = Record<string, Record<string, Variant>>;

/** What two choices of different layers cost together beyond the sum of their scores; may be negative. */
export interface PairTerm {
  a: readonly [layer: string, variant: string];
  b: readonly [layer: string, variant: string];
  /** Added to the objective where both are chosen. */
  value: number;
}

export interface SearchOptions {
  /** The metric whose sum is minimised. Defaults to "kl_div". */
  objective?: string;
  /** Largest total of each named cost, in the cost's own unit. */
  max?: Record<string, number>;
  /** Smallest total of each named cost. */
  min?: Record<string, number>;
  /** Costs outside the blocks (embedding, head), counted in every total. */
  fixed?: Record<string, number>;
  /** Interactions between choices. Defaults to none. */
  pairTerms?: readonly PairTerm[];
  /** How many choices to return, each the best among those that differ enough from all before it. Defaults to 1. */
  solutions?: number;
  /** Layers in which any two solutions differ at least. Defaults to 1. */
  minDistance?: number;
  /** Solve again for each of these values of one `max` budget, the others as given. */
  sweep?: { name: string; values: number[] };
  /** Relative gap at which a solution counts as proven. Defaults to 0. */
  gap?: number;
  /** Seconds after which one solve gives up with an error that states the gap reached. Defaults to 300. */
  limitSeconds?: number;
  signal?: AbortSignal;
}

/** One proven choice. */
export interface Solution {
  /** Sum of the objective metric. */
  objective: number;
  /** Proven lower bound of the objective among the solutions that were allowed here. */
  bound: number;
  /** (objective - bound) / |objective|; 0 when proven optimal. */
  gap: number;
  /** Totals with the fixed costs: every cost that all variants state, and every constrained name. */
  totals: Record<string, number>;
  /** layer -> variant; a choice over several layers appears once, under the layer that lists it. */
  choice: Record<string, string>;
}

export interface FrontierPoint extends Partial<Solution> {
  status: "optimal" | "infeasible";
  /** The value of the swept budget. */
  budget: number;
}

/** Why nothing satisfies the constraints, and what would. */
export interface Infeasibility {
  message: string;
  constraints: {
    name: string;
    kind: "max" | "min";
    budget: number;
    /** The least total that any choice reaches (the largest for a `min`), were this the only constraint. */
    reachable: number;
    holdsAlone: boolean;
  }[];
  /** Budgets that can hold together, nearest in the sum of relative violations, and the best choice under them. */
  nearest: {
    max: Record<string, number>;
    min: Record<string, number>;
    objective: number;
    choice: Record<string, string>;
  };
}

export interface SearchResult {
  status: "optimal" | "infeasible";
  objective: number | null;
  bound: number | null;
  gap: number | null;
  /** Wall-clock seconds of the whole search. */
  seconds: number;
  totals: Record<string, number>;
  choice: Record<string, string>;
  /**
   * What one more unit of each budget saves in the objective, from the linear relaxation (so a guide, valid near the
   * budget). Zero where a budget does not bind.
   */
  shadowPrices: Record<string, number>;
  /** The optimum first, then the others asked for, best first. */
  solutions: Solution[];
  frontier: FrontierPoint[];
  reason: Infeasibility | null;
}

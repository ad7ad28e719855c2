export type RngState = [number, number, number, number];

export interface Rng {
  /** Uniform in [0, 1). */
  next(): number;
  /** Uniform integer in [0, n). */
  int(n: number): number;
  /** Standard normal. */
  normal(): number;
  /** A shuffled copy (Fisher-Yates). */
  shuffle<T>(items: readonly T[]): T[];
  /** Where the sequence stands; `createRngFromState` goes on from there. */
  state(): RngState;
}

/** A seeded generator: sfc32 (Chris Doty-Humphrey, PractRand), the same numbers on every machine. */
export function createRng(seed: number | string): Rng {
  const rng = createRngFromState(seedState(String(seed)));
  for (let i = 0; i < 15; i++) rng.next();
  return rng;
}

export function createRngFromState(start: RngState): Rng {
  let [a, b, c, counter] = start;

  const next = (): number => {
    const t = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return (t >>> 0) / 4294967296;
  };

  const int = (n: number): number => Math.floor(next() * n);

  return {
    next,
    int,
    // Box-Muller; 1 - u keeps the logarithm finite.
    normal: () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()),
    shuffle(items) {
      const copy = [...items];
      for (let i = copy.length - 1; i > 0; i--) {
        const j = int(i + 1);
        [copy[i], copy[j]] = [copy[j]!, copy[i]!];
      }
      return copy;
    },
    state: () => [a, b, c, counter],
  };
}

/** FNV-1a over the text, once for each word of the state. */
function seedState(text: string): RngState {
  const word = (basis: number): number => {
    let hash = basis;
    for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 16777619);
    return hash | 0;
  };
  return [word(2166136261), word(84696351), word(1540483477), 1];
}

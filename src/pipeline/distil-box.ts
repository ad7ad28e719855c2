/**
 * @module How long a distillation is to last, and which of its states is kept: pure functions.
 */
import { EspalierError, type Interval, mean, pairedInterval } from "../base/index.js";

/** What ends a distillation: tokens read, or minutes on the clock. Zero tokens mean none. */
export type DistilBound = { tokens: number } | { minutes: number };

const minutesOf: Record<string, number> = { s: 1 / 60, m: 1, min: 1, h: 60 };
const tokensOf: Record<string, number> = { "": 1, k: 1e3, m: 1e6, b: 1e9 };

/**
 * Reads `--distill`: a time (`90s`, `30m`, `1.5h`), tokens (`400K`, `400Ktokens`, `1M tokens`, `250000`) or `0` for none.
 * A bare `m` after a number is minutes, a capital `M` means millions of tokens.
 */
export function parseDistill(text: string): DistilBound {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*?)\s*(tokens?)?$/i.exec(text.trim());
  if (!match) throw badBound(text);
  const amount = Number(match[1]);
  const [unit, counts] = [match[2]!, match[3] !== undefined];
  const minutes = counts ? undefined : minutesOf[unit];
  if (minutes !== undefined) return amount === 0 ? { tokens: 0 } : { minutes: amount * minutes };
  const factor = tokensOf[unit.toLowerCase()];
  // Capitals of time units (30H, 90S) would be guesses.
  if (factor === undefined) throw badBound(text);
  const tokens = Math.round(amount * factor);
  if (amount > 0 && tokens === 0) throw badBound(text);
  return { tokens };
}

function badBound(found: string): EspalierError {
  return new EspalierError({
    where: "--distill",
    expected: "a time such as 90s, 30m or 2h, tokens such as 400K or 1Mtokens, or 0 for none",
    found: `"${found}"`,
    fix: "for example --distill 30m",
    exitCode: 2,
  });
}

/** What was measured before a time-boxed training began; from then on it is an input like any other. */
export interface DistilBox {
  minutes: number;
  secondsPerStep: number;
  /** Of one measurement of the KL on the way. */
  secondsPerPoint: number;
  /** Gone before the first step: the first measurement, the timed steps. */
  secondsSpent: number;
  steps: number;
}

/** Turns a box into steps: what is left of it after `points` more measurements, at least one step. */
export function boxOf(measured: Omit<DistilBox, "steps">, points: number): DistilBox {
  const { minutes, secondsPerStep, secondsPerPoint, secondsSpent } = measured;
  const left = 60 * minutes - secondsSpent - points * secondsPerPoint;
  return { ...measured, steps: Math.max(1, Math.floor(left / secondsPerStep)) };
}

/** How much slower than measured steps may be before the run says so. */
const slowness = 1.1;

/** Watches whether steps take as long as the box was cut for, and says once when they do not. */
export function createPace(clock: () => number, warn: (message: string) => void) {
  let [since, milliseconds, steps, said] = [Number.NaN, 0, 0, false];
  return {
    /** A step begins. */
    start(): void {
      since = clock();
    },
    /** A step has ended; the first one of a process, which compiles, is not counted. */
    step(box: DistilBox): void {
      if (Number.isNaN(since)) return;
      milliseconds += clock() - since;
      steps += 1;
      const real = milliseconds / steps / 1000;
      if (said || steps < Math.max(3, box.steps / 20) || real <= slowness * box.secondsPerStep) return;
      said = true;
      warn(overrunText(box, real));
    },
  };
}

function overrunText({ minutes, steps, secondsPerStep }: DistilBox, real: number): string {
  return (
    `steps take ${real.toPrecision(3)} s where ${secondsPerStep.toPrecision(3)} s were measured: all ${steps} are taken, ` +
    `in about ${((minutes * real) / secondsPerStep).toPrecision(3)} minutes in place of ${minutes}`
  );
}

/** KL from the parent on set-aside sequences after some steps. */
export interface DistilPoint {
  step: number;
  tokens: number;
  kl: Interval;
  klBySequence: number[];
}

/**
 * The state to keep: the last one, unless an earlier one is better by more than noise, which is to say that the 95 %
 * interval of the difference, paired by sequence, excludes zero.
 */
export function choosePoint(points: readonly DistilPoint[]): { kept: DistilPoint; worseThanKept?: Interval } {
  const last = points.at(-1)!;
  const best = points.reduce((a, b) => (mean(b.klBySequence) <= mean(a.klBySequence) ? b : a));
  if (best === last) return { kept: last };
  const difference = pairedInterval(last.klBySequence, best.klBySequence);
  return difference.low > 0 ? { kept: best, worseThanKept: difference } : { kept: last };
}

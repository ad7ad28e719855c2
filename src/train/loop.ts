import { EspalierError, fileExists, ignoreEvents, median, type OnEvent } from "../base/index.js";
import { measureProductRate, type Runtime, type Tensors } from "../runtime/index.js";
import { type AverageOptions, createAverage } from "./average.js";
import type { Batch, Batches } from "./batches.js";
import { clipFactor, createNorm } from "./clip.js";
import { bestOf, createEvaluation, type EvaluateOptions, isExhausted, type Measured } from "./evaluate.js";
import type { Optimiser } from "./optim/index.js";
import { type Parameters, viewsOf } from "./parameters.js";
import { constant, type Schedule } from "./schedule.js";
import { settingsOf } from "./settings.js";
import { readTrainState, type TrainState, writeTrainState } from "./state.js";
import { type BuildLoss, createStep, type StepSource } from "./step.js";

export interface TrainOptions {
  runtime: Runtime;
  /** Name in events and of the programs. */
  stage: string;
  /** Changed in place. */
  parameters: Parameters;
  /** One program of the whole loss, or another source of its gradient such as `layeredDistillation`. */
  loss: BuildLoss | StepSource;
  /** Inputs of the loss that stay the same, such as a teacher's weights. */
  frozen?: Tensors;
  batches: Batches;
  optimiser: Optimiser;
  /** Updates in all, or a function that says how many from the seconds that one takes. */
  steps: number | TimedSteps;
  /** Batches of one step; their gradients are summed under one denominator. Defaults to 1. */
  accumulate?: number;
  /** Peak learning rate. */
  learningRate: number;
  /** Defaults to constant. */
  schedule?: Schedule;
  /** Longest gradient, as Euclidean norm over all parameters; longer ones are shortened to it. Defaults to 1. */
  clip?: number;
  /** The inside of blocks is computed again in the backward sweep: less memory, more time. Defaults to false. */
  recompute?: boolean;
  /** Keeps a moving average of the parameters, which is what measurements see. Defaults to none. */
  average?: AverageOptions;
  /** Measures on the way, and may end the run early. Defaults to never. */
  evaluate?: EvaluateOptions;
  /** State of the caller's own that checkpoints keep, such as that of a generator of random numbers. */
  carried?: Carried;
  /** Floating-point operations for each token, such as 6 for each parameter: events then tell the share of the peak. */
  flopsPerToken?: number;
  onEvent?: OnEvent;
  /** Awaited after each step, for measuring on the way; it must not change the parameters. */
  afterStep?: (step: number, steps: number) => Promise<void>;
  /** Stops between two batches; with a checkpoint, the steps done are kept. */
  signal?: AbortSignal;
  /** File that holds the state; a run that finds it goes on from there. The caller removes it when it is done. */
  checkpoint?: Checkpoint;
  /** Milliseconds, for rates and spacing; no result depends on it but `steps` as a function. Defaults to the machine's. */
  clock?: () => number;
}

/**
 * Called once, before the first step, with the seconds of a step as timed here: a few steps at learning rate 0, of which
 * nothing stays. A run that is to be resumed keeps the answer and gives it as a number the next time.
 */
export type TimedSteps = (secondsPerStep: number) => number | Promise<number>;

export interface Checkpoint {
  path: string;
  /** Steps between two writes. Defaults to what keeps writing below a fortieth of the time, 15 seconds at least. */
  every?: number;
  /** File for the state with the least loss measured; then the last state is written too when the run ends. Defaults to none. */
  best?: string;
}

/** Plain JSON out of the caller's hands after a step, and back into them when a run is resumed. */
export interface Carried {
  save(): unknown;
  restore(value: unknown): void;
}

export interface TrainResult {
  /** Steps done: fewer than asked for where the run ended early. */
  steps: number;
  /** Loss of each step, before its update. */
  losses: readonly number[];
  /** What `evaluate` found, the start included. */
  measured: readonly Measured[];
  /** The best of them; its parameters are in the checkpoint's `best`. */
  best?: Measured;
  /** The moving average at the end, laid out like the parameters. */
  average?: Float32Array;
  seconds: number;
  /** Tokens read by this process, as batches state them. */
  tokens: number;
}

/**
 * Trains `parameters` for `steps` steps. The same inputs give the same bytes, whether or not the run was stopped and
 * resumed in between.
 *
 * @throws EspalierError when loss or gradient cease to be finite; the signal's reason when it is aborted
 */
export async function train(options: TrainOptions): Promise<TrainResult> {
  const { runtime, stage, average, evaluate, signal, checkpoint, clock = now } = options;
  const { onEvent = ignoreEvents } = options;
  const start = clock();
  const state = createState(options);
  const takeStep = createTrainStep(options, state);
  const steps = typeof options.steps === "number" ? options.steps : await options.steps(await timeSteps());
  const settings = settingsOf(options, steps);
  if (checkpoint && (await fileExists(checkpoint.path))) {
    await readTrainState(checkpoint.path, settings, state);
    options.carried?.restore(state.carried);
  }
  const due = spacing(checkpoint, clock);
  const writeState = (path: string) => writeTrainState(path, settings, state);
  const save = async () => {
    if (checkpoint) await due.timed(() => writeState(checkpoint.path));
  };
  const progress = createProgress(
    options,
    steps,
    options.flopsPerToken ? await measureProductRate(runtime) : undefined,
  );
  const updateAverage = average && createAverage(runtime, average);
  const measure = evaluate && createMeasure({ ...options, evaluate }, state, steps, writeState);

  let tokens = 0;
  let waiting = false;
  await measure?.();
  while (state.step < steps && !(evaluate && isExhausted(state.measured, evaluate))) {
    if (signal?.aborted) {
      await save();
      signal.throwIfAborted();
    }
    const rate = options.learningRate * (options.schedule ?? constant())(state.step, steps);
    // A state is written when the next loss has shown that it is sound.
    const report = await takeStep(rate, async () => {
      if (waiting) await save();
    });
    await updateAverage?.(state.average!, state.parameters);
    tokens += report.tokens;
    state.losses.push(report.loss);
    state.step += 1;
    state.carried = options.carried?.save();
    onEvent({ event: "train", stage, step: state.step, steps, ...progress(state.step, report) });
    await measure?.();
    await options.afterStep?.(state.step, steps);
    waiting = due.now(state.step) && state.step < steps;
  }
  if (checkpoint?.best !== undefined) await save();
  const best = evaluate && bestOf(state.measured, evaluate);
  return {
    steps: state.step,
    losses: state.losses,
    measured: state.measured,
    ...(best && { best }),
    ...(state.average && { average: state.average }),
    seconds: (clock() - start) / 1000,
    tokens,
  };

  /** Seconds of a step: the median of some after the first, which compiles. Parameters and moments end as they were. */
  async function timeSteps(): Promise<number> {
    const scalars = { ...state.optimiser.scalars };
    await takeStep(0);
    const seconds: number[] = [];
    const began = clock();
    while (seconds.length < 3 || (seconds.length < 50 && clock() - began < 1000)) {
      signal?.throwIfAborted();
      seconds.push((await takeStep(0)).seconds);
    }
    for (const array of Object.values(state.optimiser.arrays)) array.fill(0);
    Object.assign(state.optimiser, { step: 0, scalars });
    return median(seconds);
  }
}

const now = () => performance.now();

interface RunState extends TrainState {
  losses: number[];
  measured: Measured[];
}

function createState({ parameters, optimiser, average }: TrainOptions): RunState {
  return {
    step: 0,
    parameters: parameters.flat,
    ...(average && { average: Float32Array.from(parameters.flat) }),
    optimiser: optimiser.init(parameters.layout),
    losses: [],
    measured: [],
    carried: undefined,
  };
}

/** Measures where it is due, says so, and writes the state where it is the best one. */
function createMeasure(
  options: TrainOptions & { evaluate: EvaluateOptions },
  state: RunState,
  steps: number,
  writeState: (path: string) => Promise<void>,
): () => Promise<void> {
  const { stage, parameters, evaluate, checkpoint, onEvent = ignoreEvents } = options;
  const lossOf = createEvaluation(options);
  const { layout, flat } = parameters;
  const every = typeof evaluate.every === "number" ? evaluate.every : evaluate.every(steps);
  const seen = () => ({ layout, flat: state.average ?? flat, tensors: viewsOf(layout, state.average ?? flat) });
  return async () => {
    const isDue = state.step % every === 0 || state.step === steps;
    if (!isDue || state.measured.at(-1)?.step === state.step) return;
    const measured = { step: state.step, loss: await lossOf(seen()) };
    if (!Number.isFinite(measured.loss)) fail(`${stage}, evaluation after step ${state.step}`, `loss ${measured.loss}`);
    state.measured.push(measured);
    const best = bestOf(state.measured, evaluate) === measured;
    onEvent({ event: "evaluate", stage, steps, ...measured, best });
    if (best && checkpoint?.best !== undefined) await writeState(checkpoint.best);
  };
}

/** Steps whose mean foretells the time of those that are left. */
const recentSteps = 20;

/** What an event says of a step besides its number. */
function createProgress({ flopsPerToken }: TrainOptions, steps: number, productRate: number | undefined) {
  const recent: number[] = [];
  return (step: number, { seconds, ...report }: StepReport) => {
    recent.push(seconds);
    if (recent.length > recentSteps) recent.shift();
    const tokensPerSecond = report.tokens / seconds;
    return {
      ...report,
      tokensPerSecond,
      ...(flopsPerToken && productRate && { shareOfPeak: (tokensPerSecond * flopsPerToken) / productRate }),
      rssBytes: process.memoryUsage.rss(),
      secondsLeft: (recent.reduce((sum, each) => sum + each, 0) / recent.length) * (steps - step),
    };
  };
}

/** When the next checkpoint is due. A checkpoint is exact, so no result depends on where they fall. */
function spacing(checkpoint: Checkpoint | undefined, clock: () => number) {
  let [ended, cost] = [clock(), 0];
  return {
    async timed(write: () => Promise<void>): Promise<void> {
      const began = clock();
      await write();
      ended = clock();
      cost = ended - began;
    },
    now: (step: number): boolean =>
      checkpoint?.every ? step % checkpoint.every === 0 : clock() - ended > Math.max(15_000, 40 * cost),
  };
}

interface StepReport {
  loss: number;
  parts: Record<string, number>;
  gradientNorm: number;
  learningRate: number;
  tokens: number;
  seconds: number;
}

type TakeStep = (learningRate: number, beforeUpdate?: () => Promise<void>) => Promise<StepReport>;

/** One step at a learning rate: batches, gradient, norm, update. */
function createTrainStep(options: TrainOptions, state: TrainState): TakeStep {
  const { runtime, stage, parameters, loss, frozen = {}, batches, optimiser, clip = 1, clock = now } = options;
  const { recompute = false } = options;
  const gradients = new Float32Array(parameters.layout.size);
  const program =
    typeof loss === "function"
      ? createStep(runtime, stage, parameters, gradients, loss, { recompute })
      : loss.create(runtime, stage, parameters, gradients);
  const norm = createNorm(runtime);
  const update = optimiser.createUpdate(runtime);

  return async (learningRate, beforeUpdate) => {
    const start = clock();
    const { accumulate = 1 } = options;
    const numbers = Array.from({ length: accumulate }, (_, i) => state.step * accumulate + i);
    const drawn = await Promise.all(numbers.map(async (number) => batches(number)));
    const denominator = drawn.reduce((sum, { weight }) => sum + weight, 0);
    let total = 0;
    const parts: Record<string, number> = {};
    for (const [i, batch] of drawn.entries()) {
      const result = await program.run({ ...frozen, ...batch.feeds }, denominator, i === 0);
      requireFinite(options, state.step, "loss", result.loss, [{ ...batch, number: numbers[i]! }]);
      total += result.loss;
      for (const part in result.parts) parts[part] = (parts[part] ?? 0) + result.parts[part]!;
    }
    const gradientNorm = await norm(gradients);
    const named = drawn.map((batch, i) => ({ ...batch, number: numbers[i]! }));
    requireFinite(options, state.step, "gradient norm", gradientNorm, named);
    await beforeUpdate?.();
    await update({
      layout: parameters.layout,
      parameters: parameters.flat,
      gradients,
      state: state.optimiser,
      learningRate,
      gradientScale: clipFactor(gradientNorm, clip),
    });
    const tokens = drawn.reduce((sum, batch) => sum + (batch.tokens ?? batch.weight), 0);
    const seconds = (clock() - start) / 1000;
    return { loss: total, parts, gradientNorm, learningRate, tokens, seconds };
  };
}

function requireFinite(
  { stage, checkpoint }: TrainOptions,
  step: number,
  what: string,
  value: number,
  batches: readonly (Batch & { number: number })[],
): void {
  if (Number.isFinite(value)) return;
  const names = batches.map(({ number, name }) => (name === undefined ? String(number) : `${number} (${name})`));
  const kept = checkpoint ? `; the checkpoint ${checkpoint.path} is of an earlier step` : "";
  fail(`${stage}, step ${step + 1}, batch ${names.join(", ")}`, `${what} ${value}`, kept);
}

function fail(where: string, found: string, kept = ""): never {
  const fix = `lower the learning rate, or look for infinite weights and empty batches${kept}`;
  throw new EspalierError({ where, expected: "a finite loss and gradient", found, fix });
}

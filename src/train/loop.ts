import { digestJson, EspalierError, fileExists, ignoreEvents, median, type OnEvent } from "../base/index.js";
import type { Runtime, Tensors } from "../runtime/index.js";
import type { Batches } from "./batches.js";
import { clipFactor, createNorm } from "./clip.js";
import type { Optimiser } from "./optim/index.js";
import type { Parameters } from "./parameters.js";
import { constant, type Schedule } from "./schedule.js";
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
}

export interface TrainResult {
  /** Loss of each step, before its update. */
  losses: readonly number[];
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
  const { parameters, optimiser, signal, checkpoint, onEvent = ignoreEvents, clock = now } = options;
  const start = clock();
  const state: TrainState & { losses: number[] } = {
    step: 0,
    parameters: parameters.flat,
    optimiser: optimiser.init(parameters.layout),
    losses: [],
  };
  const takeStep = createTrainStep(options, state);
  const steps = typeof options.steps === "number" ? options.steps : await options.steps(await timeSteps());
  const settings = settingsOf(options, steps);
  if (checkpoint && (await fileExists(checkpoint.path))) await readTrainState(checkpoint.path, settings, state);
  const due = spacing(checkpoint, clock);
  const save = async () => {
    if (checkpoint) await due.timed(() => writeTrainState(checkpoint.path, settings, state));
  };

  let tokens = 0;
  while (state.step < steps) {
    if (signal?.aborted) {
      await save();
      signal.throwIfAborted();
    }
    const report = await takeStep(options.learningRate * (options.schedule ?? constant())(state.step, steps));
    tokens += report.tokens;
    state.losses.push(report.loss);
    state.step += 1;
    const { seconds, ...rest } = report;
    const rate = report.tokens / seconds;
    onEvent({ event: "train", stage: options.stage, step: state.step, steps, ...rest, tokensPerSecond: rate });
    await options.afterStep?.(state.step, steps);
    if (due.now(state.step) && state.step < steps) await save();
  }
  return { losses: state.losses, seconds: (clock() - start) / 1000, tokens };

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

/** One step at a learning rate: batches, gradient, norm, update. */
function createTrainStep(options: TrainOptions, state: TrainState): (learningRate: number) => Promise<StepReport> {
  const { runtime, stage, parameters, loss, frozen = {}, batches, optimiser, clip = 1, clock = now } = options;
  const gradients = new Float32Array(parameters.layout.size);
  const program =
    typeof loss === "function"
      ? createStep(runtime, stage, parameters, gradients, loss)
      : loss.create(runtime, stage, parameters, gradients);
  const norm = createNorm(runtime);
  const update = optimiser.createUpdate(runtime);

  return async (learningRate) => {
    const start = clock();
    const { accumulate = 1 } = options;
    const numbers = Array.from({ length: accumulate }, (_, i) => state.step * accumulate + i);
    const drawn = await Promise.all(numbers.map(async (number) => batches(number)));
    const denominator = drawn.reduce((sum, { weight }) => sum + weight, 0);
    let total = 0;
    const parts: Record<string, number> = {};
    for (const [i, batch] of drawn.entries()) {
      const result = await program.run({ ...frozen, ...batch.feeds }, denominator, i === 0);
      total += result.loss;
      for (const part in result.parts) parts[part] = (parts[part] ?? 0) + result.parts[part]!;
    }
    const gradientNorm = await norm(gradients);
    requireFinite(stage, state.step, total, gradientNorm);
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

function requireFinite(stage: string, step: number, loss: number, gradientNorm: number): void {
  if (Number.isFinite(loss) && Number.isFinite(gradientNorm)) return;
  throw new EspalierError({
    where: `${stage}, step ${step + 1}`,
    expected: "a finite loss and gradient",
    found: `loss ${loss}, gradient norm ${gradientNorm}`,
    fix: "lower the learning rate, or look for infinite weights and empty batches",
  });
}

function settingsOf(options: TrainOptions, steps: number): string {
  const { stage, parameters, optimiser, accumulate, learningRate, schedule, clip } = options;
  // A schedule is a function; its values at a few places stand for it.
  const rates = [0, 1, steps >> 1, steps - 1].map((step) => (schedule ?? constant())(step, steps));
  const places = parameters.layout.places.map(({ name, shape }) => [name, shape]);
  return digestJson({ stage, places, optimiser: optimiser.description, steps, accumulate, learningRate, rates, clip });
}

import { digestJson, EspalierError, fileExists, ignoreEvents, type OnEvent } from "../base/index.js";
import type { Runtime, Tensors } from "../runtime/index.js";
import type { Batches } from "./batches.js";
import { clipFactor, createNorm } from "./clip.js";
import type { Optimiser } from "./optim/index.js";
import type { Parameters } from "./parameters.js";
import { constant, type Schedule } from "./schedule.js";
import { readTrainState, type TrainState, writeTrainState } from "./state.js";
import { type BuildLoss, createStep } from "./step.js";

export interface TrainOptions {
  runtime: Runtime;
  /** Name in events and of the programs. */
  stage: string;
  /** Changed in place. */
  parameters: Parameters;
  loss: BuildLoss;
  /** Inputs of the loss that stay the same, such as a teacher's weights. */
  frozen?: Tensors;
  batches: Batches;
  optimiser: Optimiser;
  steps: number;
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
  afterStep?: (step: number) => Promise<void>;
  /** Stops between two batches; with a checkpoint, the steps done are kept. */
  signal?: AbortSignal;
  /** File that holds the state; a run that finds it goes on from there. The caller removes it when it is done. */
  checkpoint?: { path: string /** Steps between two writes. Defaults to 50. */; every?: number };
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
  const { parameters, optimiser, steps, signal, checkpoint, onEvent = ignoreEvents } = options;
  const start = performance.now();
  const state: TrainState & { losses: number[] } = {
    step: 0,
    parameters: parameters.flat,
    optimiser: optimiser.init(parameters.layout),
    losses: [],
  };
  const settings = settingsOf(options);
  if (checkpoint && (await fileExists(checkpoint.path))) await readTrainState(checkpoint.path, settings, state);
  const save = async () => {
    if (checkpoint) await writeTrainState(checkpoint.path, settings, state);
  };
  const takeStep = createTrainStep(options, state);

  let tokens = 0;
  while (state.step < steps) {
    if (signal?.aborted) {
      await save();
      signal.throwIfAborted();
    }
    const report = await takeStep();
    tokens += report.tokens;
    state.losses.push(report.loss);
    state.step += 1;
    const { seconds, ...rest } = report;
    const rate = report.tokens / seconds;
    onEvent({ event: "train", stage: options.stage, step: state.step, steps, ...rest, tokensPerSecond: rate });
    await options.afterStep?.(state.step);
    if (state.step % (checkpoint?.every ?? 50) === 0 && state.step < steps) await save();
  }
  return { losses: state.losses, seconds: (performance.now() - start) / 1000, tokens };
}

interface StepReport {
  loss: number;
  parts: Record<string, number>;
  gradientNorm: number;
  learningRate: number;
  tokens: number;
  seconds: number;
}

/** One step as a function: batches, gradient, norm, update. */
function createTrainStep(options: TrainOptions, state: TrainState): () => Promise<StepReport> {
  const {
    runtime,
    parameters,
    loss,
    frozen = {},
    batches,
    optimiser,
    steps,
    schedule = constant(),
    clip = 1,
  } = options;
  const gradients = new Float32Array(parameters.layout.size);
  const program = createStep(runtime, options.stage, parameters, gradients, loss);
  const norm = createNorm(runtime);
  const update = optimiser.createUpdate(runtime);

  return async () => {
    const start = performance.now();
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
    requireFinite(options.stage, state.step, total, gradientNorm);
    const learningRate = options.learningRate * schedule(state.step, steps);
    await update({
      layout: parameters.layout,
      parameters: parameters.flat,
      gradients,
      state: state.optimiser,
      learningRate,
      gradientScale: clipFactor(gradientNorm, clip),
    });
    const tokens = drawn.reduce((sum, batch) => sum + (batch.tokens ?? batch.weight), 0);
    const seconds = (performance.now() - start) / 1000;
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

function settingsOf({ stage, parameters, optimiser, steps, accumulate, learningRate, schedule, clip }: TrainOptions) {
  // A schedule is a function; its values at a few places stand for it.
  const rates = [0, 1, steps >> 1, steps - 1].map((step) => (schedule ?? constant())(step, steps));
  const places = parameters.layout.places.map(({ name, shape }) => [name, shape]);
  return digestJson({ stage, places, optimiser: optimiser.description, steps, accumulate, learningRate, rates, clip });
}

/**
 * @module Many sequences continued at once from weights that lie in memory, for rollouts: a prompt is computed once for
 * all its samples, one program computes a step of the whole batch, and a sequence that ends makes room for the next.
 */
import { EspalierError } from "../../base/index.js";
import {
  type LoraConfig,
  loraWeights,
  type ModelConfig,
  modelWeights,
  positionsFrom,
  rotaryTables,
  type WeightInfo,
  type WeightSource,
} from "../../models/index.js";
import type { Program, Runtime } from "../../runtime/index.js";
import { type F32Tensor, f32Tensor, formatType, type HostTensor, i64Tensor, sameShape } from "../../tensor/index.js";
import { check, checkFinite, checkPrompt } from "./checks.js";
import { drawToken, type Truncation, uniformAt } from "./draw.js";
import { type Choice, compilePrompt, compileStep, type RoundedMatrices, type WeightForm } from "./programs.js";
import { createSlots, growSlots, moveSlot, type Slots, slotInputs, slotMask, writePrompt, writeStep } from "./slots.js";

/** All weights of a model by full name; the arrays are read where they lie at every step. */
export type WeightTensors = Readonly<Record<string, F32Tensor>>;

export interface BatchPrompt {
  ids: ArrayLike<number>;
  /** Answers to it. Defaults to 1. */
  samples?: number;
  /** Names the prompt in its draws: with the same key and seed it has the same answers. Defaults to its place. */
  key?: string | number;
}

export interface BatchGenerateOptions {
  /** 0 takes the most probable token. Defaults to 1. */
  temperature?: number;
  /** Keep this many of the most probable tokens; 0 keeps all. Defaults to 0. */
  topK?: number;
  /** Keep the most probable tokens up to this probability; 1 keeps all. Defaults to 1. */
  topP?: number;
  /** Defaults to 0. */
  seed?: number;
  /** New tokens of a sequence. Defaults to 128. */
  maxTokens?: number;
  /** Ids that end a sequence; the one met is the last of `ids`. Defaults to the model's end tokens. */
  stop?: readonly number[];
  signal?: AbortSignal;
  /** Called as each sequence ends, with the places of its prompt and of itself among the prompt's samples. */
  onEnd?: (sequence: BatchSequence, prompt: number, sample: number) => void;
}

export interface BatchSequence {
  /** New ids, without the prompt. */
  ids: Int32Array;
  /**
   * The sampler's own log-probability of each, of the whole distribution at temperature 1. For diagnostics: its sums
   * round otherwise than those of training, which computes its own.
   */
  logProbs: Float32Array;
  /** `stop`: a stop id; `length`: `maxTokens`; `context`: the model's longest context is full. */
  finish: "stop" | "length" | "context";
}

export interface BatchGeneratorOptions {
  /** Sequences that decode together. Defaults to 32. */
  width?: number;
  /** An adapter, whose matrices are among the tensors, where it is not merged into them. Defaults to none. */
  lora?: LoraConfig;
  /** Matrices in 8 bits for new tokens (prompts are read with those among the tensors). Defaults to none. */
  rounded?: RoundedMatrices;
}

export interface BatchGenerator {
  readonly config: ModelConfig;
  /** Answers of each prompt, in the order of the prompts. One call at a time. */
  generate(prompts: readonly BatchPrompt[], options?: BatchGenerateOptions): Promise<BatchSequence[][]>;
  /**
   * Takes other arrays for some of the weights from the next call on. Arrays that were given before and are changed in
   * place need no call.
   */
  updateWeights(tensors: WeightTensors): void;
}

/**
 * @example
 * const weights = await readAllWeights(model.config, model.weights);
 * const sampler = createBatchGenerator(runtime, model.config, weights);
 * const [answers] = await sampler.generate([{ ids: tokenizer.encode("Once"), samples: 8 }], { seed: 1, maxTokens: 64 });
 */
export function createBatchGenerator(
  runtime: Runtime,
  config: ModelConfig,
  tensors: WeightTensors,
  { width = 32, lora, rounded }: BatchGeneratorOptions = {},
): BatchGenerator {
  check("width", Number.isInteger(width) && width >= 1, "a whole number of sequences", width);
  const wanted = [...modelWeights(config), ...(lora ? loraWeights(config, lora) : [])];
  const form = { ...(lora && { lora }), ...(rounded && { rounded }) };
  let weights = ownWeights(wanted, tensors, {});
  let running = false;
  const programs = new Map<string, Promise<Program>>();
  return {
    config,
    updateWeights(changed) {
      weights = ownWeights(wanted, changed, weights);
    },
    async generate(prompts, options = {}) {
      if (running) throw new EspalierError({ where: "batch generator", expected: "one call at a time", found: "two" });
      running = true;
      try {
        return await generateAll({ runtime, config, weights, width, programs, form }, prompts, options);
      } finally {
        running = false;
      }
    },
  };
}

/** Every weight of a model in memory, f32. */
export async function readAllWeights(config: ModelConfig, source: WeightSource): Promise<Record<string, F32Tensor>> {
  const tensors: Record<string, F32Tensor> = {};
  for (const { name } of modelWeights(config)) tensors[name] = (await source.read(name)) as F32Tensor;
  return tensors;
}

interface Parts {
  runtime: Runtime;
  config: ModelConfig;
  weights: WeightTensors;
  width: number;
  programs: Map<string, Promise<Program>>;
  form: WeightForm;
}

/** A prompt after its run: what its samples start from. */
interface ReadyPrompt {
  place: number;
  key: string | number;
  length: number;
  /** New keys and values, and one row of the choice. */
  outputs: Record<string, HostTensor>;
  /** Samples that have not started. */
  next: number;
  samples: number;
}

/** A sequence in a slot. */
interface Running {
  prompt: ReadyPrompt;
  sample: number;
  ids: number[];
  logProbs: number[];
  /** Positions in the cache; the last id is not there yet. */
  length: number;
}

interface Batch extends Parts {
  settings: Settings;
  slots: Slots;
  /** In the order of their slots, without gaps. */
  running: Running[];
  results: BatchSequence[][];
}

type Settings = ReturnType<typeof settingsOf>;

async function generateAll(
  parts: Parts,
  prompts: readonly BatchPrompt[],
  options: BatchGenerateOptions,
): Promise<BatchSequence[][]> {
  const settings = settingsOf(parts.config, options);
  for (const [i, { ids, samples = 1 }] of prompts.entries()) checkPrompt(parts.config, i, ids, samples);
  const longest = Math.max(0, ...prompts.map(({ ids }) => ids.length));
  const batch: Batch = {
    ...parts,
    settings,
    slots: createSlots(parts.config, parts.width, capacityFor(longest + Math.min(settings.maxTokens, capacityStep))),
    running: [],
    results: prompts.map(() => []),
  };
  const queue = prompts.map((prompt, place) => ({ ...prompt, place }));
  let ready: ReadyPrompt | undefined;
  for (;;) {
    settings.signal?.throwIfAborted();
    while (batch.running.length < parts.width) {
      if (!ready || ready.next === ready.samples) {
        const prompt = queue.shift();
        if (!prompt) break;
        ready = await runPrompt(batch, prompt);
      }
      startSample(batch, ready);
    }
    if (batch.running.length === 0) return batch.results;
    await step(batch);
  }
}

function settingsOf(config: ModelConfig, options: BatchGenerateOptions) {
  const { temperature = 1, topK = 0, topP = 1, seed = 0, maxTokens = 128, stop = config.eosTokenIds } = options;
  check("temperature", temperature >= 0, "at least 0", temperature);
  check("topP", topP > 0 && topP <= 1, "above 0 and at most 1", topP);
  check("topK", topK >= 0, "at least 0", topK);
  check("maxTokens", maxTokens >= 1, "at least 1", maxTokens);
  const choice: Choice = temperature === 0 ? "greedy" : temperature === 1 ? "unit" : "tempered";
  const truncation: Truncation = { topK, topP };
  const { signal, onEnd } = options;
  return { choice, temperature, truncation, seed, maxTokens, stop: new Set(stop), signal, onEnd };
}

/** Capacities are multiples of this, so that few programs are needed. */
const capacityStep = 64;

function capacityFor(positions: number): number {
  return capacityStep * Math.ceil(positions / capacityStep);
}

/** Prompts are padded to a multiple of 16 tokens, of 64 from 128 on: a program is compiled for each length. */
function promptLength(tokens: number): number {
  const step = tokens <= 128 ? 16 : 64;
  return step * Math.ceil(tokens / step);
}

/**
 * Rows of a step: all slots, or a little more than half of them where no more are in use. With fewer rows than that the
 * library cuts the sums of its products at other places, and the tokens of a sequence would depend on how many run.
 */
function stepWidth(width: number, used: number): number {
  const smallest = width <= 16 ? Math.min(2, width) : 16 * 2 ** Math.floor(Math.log2((width - 1) / 16)) + 1;
  return used <= smallest ? smallest : width;
}

async function runPrompt(
  { runtime, config, weights, settings, programs, form: { lora } }: Batch,
  { place, ids, samples = 1, key = place }: BatchPrompt & { place: number },
): Promise<ReadyPrompt> {
  const length = Math.min(promptLength(ids.length), config.maxPositions);
  const program = await remember(programs, `prompt ${length} ${settings.choice}`, () =>
    compilePrompt(runtime, config, { length, choice: settings.choice }, lora ? { lora } : {}),
  );
  const padded = new BigInt64Array(length);
  for (let t = 0; t < ids.length; t++) padded[t] = BigInt(ids[t]!);
  const outputs = await program.run({
    ...weights,
    ...choiceInputs(settings),
    ...rotaryTables(config, positionsFrom(0, length)),
    ids: { dtype: "i64", shape: [1, length], data: padded },
    last: i64Tensor([1], [ids.length - 1]),
  });
  return { place, key, length: ids.length, outputs, next: 0, samples };
}

function choiceInputs({ choice, temperature }: Settings): Record<string, F32Tensor> {
  return choice === "tempered" ? { inverseTemperature: f32Tensor([1], [1 / temperature]) } : {};
}

/** Puts the next sample of a prompt into the first free slot, unless its first token is its last. */
function startSample(batch: Batch, prompt: ReadyPrompt): void {
  const sequence: Running = { prompt, sample: prompt.next++, ids: [], logProbs: [], length: prompt.length };
  if (takeToken(batch, sequence, prompt.outputs, 0)) return;
  const slot = batch.running.push(sequence) - 1;
  writePrompt(batch.slots, slot, prompt.outputs as Record<string, F32Tensor>, prompt.length);
}

async function step(batch: Batch): Promise<void> {
  const { runtime, config, weights, settings, programs, form, running } = batch;
  makeRoom(batch);
  const { capacity } = batch.slots;
  const width = stepWidth(batch.width, running.length);
  const program = await remember(programs, `step ${width} ${capacity} ${settings.choice}`, () =>
    compileStep(runtime, config, { width, capacity, choice: settings.choice }, form),
  );
  const lengths = running.map(({ length }) => length);
  const positions = Array.from({ length: width }, (_, slot) => lengths[slot] ?? 0);
  const outputs = await program.run({
    ...neededBy(program, weights),
    ...choiceInputs(settings),
    ...slotInputs(batch.slots, width),
    ...rotaryTables(config, positions, width),
    ids: i64Tensor(
      [width, 1],
      positions.map((_, slot) => running[slot]?.ids.at(-1) ?? 0),
    ),
    mask: slotMask(width, capacity, lengths),
  });
  writeStep(batch.slots, outputs as Record<string, F32Tensor>, lengths);
  // From the last to the first: the last one takes the place of one that ends.
  for (let slot = running.length - 1; slot >= 0; slot--) {
    const sequence = running[slot]!;
    sequence.length++;
    if (takeToken(batch, sequence, outputs, slot)) leave(batch, slot);
  }
}

function leave({ running, slots }: Batch, slot: number): void {
  const last = running.pop()!;
  if (slot === running.length) return;
  running[slot] = last;
  moveSlot(slots, running.length, slot);
}

function makeRoom(batch: Batch): void {
  const needed = Math.max(...batch.running.map(({ length }) => length));
  if (needed <= batch.slots.capacity) return;
  const lengths = batch.running.map(({ length }) => length);
  batch.slots = growSlots(batch.config, batch.slots, batch.slots.capacity + capacityStep, lengths);
}

/** Chooses a token from one row of the outputs; true where it is the sequence's last, which is then among the results. */
function takeToken(batch: Batch, sequence: Running, outputs: Record<string, HostTensor>, row: number): boolean {
  const { id, logProb } = choose(batch, sequence, outputs, row);
  sequence.ids.push(id);
  sequence.logProbs.push(logProb);
  const finish = finishOf(batch, sequence, id);
  if (!finish) return false;
  const { prompt, sample } = sequence;
  const result = { ids: Int32Array.from(sequence.ids), logProbs: Float32Array.from(sequence.logProbs), finish };
  batch.results[prompt.place]![sample] = result;
  batch.settings.onEnd?.(result, prompt.place, sample);
  return true;
}

function choose(
  { config, settings }: Batch,
  { prompt, sample, length }: Running,
  outputs: Record<string, HostTensor>,
  row: number,
): { id: number; logProb: number } {
  const total = (outputs.total!.data as Float32Array)[row]!;
  checkFinite(total, prompt.place, length);
  if (settings.choice === "greedy") {
    return { id: Number((outputs.best!.data as BigInt64Array)[row]!), logProb: -Math.log(total) };
  }
  const V = config.vocabSize;
  const odds = (outputs.odds!.data as Float32Array).subarray(row * V, (row + 1) * V);
  const id = drawToken(odds, uniformAt(settings.seed, prompt.key, sample, length), settings.truncation);
  return { id, logProb: settings.temperature * Math.log(odds[id]!) - Math.log(total) };
}

function finishOf(
  { config, settings }: Batch,
  { ids, length }: Running,
  id: number,
): BatchSequence["finish"] | undefined {
  if (settings.stop.has(id)) return "stop";
  if (ids.length >= settings.maxTokens) return "length";
  return length < config.maxPositions ? undefined : "context";
}

function remember(known: Map<string, Promise<Program>>, name: string, make: () => Promise<Program>): Promise<Program> {
  const found = known.get(name) ?? make();
  known.set(name, found);
  return found;
}

/** Without the matrices that constants stand for. */
function neededBy(program: Program, weights: WeightTensors): WeightTensors {
  return Object.fromEntries(program.inputs.flatMap(({ name }) => (weights[name] ? [[name, weights[name]]] : [])));
}

/** The weights that are wanted, from `tensors` and else from `others`. */
function ownWeights(wanted: readonly WeightInfo[], tensors: WeightTensors, others: WeightTensors): WeightTensors {
  const names = new Set(wanted.map(({ name }) => name));
  for (const name of Object.keys(tensors)) if (!names.has(name)) throw unknownWeight(name);
  const entries = wanted.map(({ name, shape }) => {
    const tensor = tensors[name] ?? others[name];
    if (tensor && sameShape(tensor.shape, shape)) return [name, tensor] as const;
    throw new EspalierError({
      where: `weight ${name}`,
      expected: formatType("f32", shape),
      found: tensor ? formatType(tensor.dtype, tensor.shape) : "none",
    });
  });
  return Object.fromEntries(entries);
}

function unknownWeight(name: string): EspalierError {
  return new EspalierError({ where: "batch generator", expected: "weights of the model", found: name });
}

/**
 * @module Running a model block by block from its files. One program serves every block of the same shape and weights
 * are its inputs, so memory holds one block, the activations of one batch, and as many weights as `cacheBytes` allows.
 */
import { EspalierError, internal } from "../base/index.js";
import {
  type BlockConfig,
  blockWeights,
  type BlockTaps as GraphTaps,
  type Model,
  type ModelConfig,
  positionsFrom,
  type RotaryTables,
  rotaryTables,
} from "../models/index.js";
import type { Runtime } from "../runtime/index.js";
import { type F32Tensor, f32Tensor, type HalfType, type HostTensor } from "../tensor/index.js";
import { createHeadScores, type HeadScores } from "./head-scores.js";
import { createPrograms, type Programs } from "./programs.js";
import { roundWeights } from "./rounding.js";
import { createWeightCache, defaultCacheBytes, type WeightCache } from "./weights.js";

export interface EngineOptions {
  /**
   * Bytes of weights to keep in memory; beyond them they are read from the file each time. Defaults to all weights of a
   * model of at most 1 GiB as f32, and none of a larger one; see `generousCacheBytes`.
   */
  cacheBytes?: number;
  /** Bytes of the head's matrix that are in memory at once where it is not kept. Defaults to 64 MiB. */
  headBytes?: number;
  /** Compute as a file of this type is computed by llama.cpp; see `rounding.ts`. Defaults to f32 throughout. */
  rounding?: HalfType;
}

/** What calibration looks at inside a block; absent where the block has no such place. See models' `BlockTaps`. */
export type BlockTaps = { [Name in keyof GraphTaps]?: F32Tensor };

/** Rows of hidden states stand for `batch` sequences of `length` tokens, one sequence after the other. */
export interface SequenceShape {
  batch: number;
  length: number;
}

export interface RunBlockOptions extends SequenceShape {
  /** Runs this block in place of the layer's own. */
  block?: BlockConfig;
  /** Weights by short name (`mlp.up_proj.weight`) in place of the layer's own; all that the block needs. */
  weights?: ReadonlyMap<string, HostTensor>;
  /** Also return the taps and the stream between the sub-layers. Defaults to false. */
  taps?: boolean;
  /** Receives the output, [rows, H]; may not be the input. Defaults to a new array. */
  into?: F32Tensor;
}

export interface BlockRun {
  /** Residual stream after the block, [rows, H]. */
  output: F32Tensor;
  /** Residual stream between attention and feed-forward, [rows, H]; with `taps`. */
  afterAttention?: F32Tensor;
  taps?: BlockTaps;
}

export interface Engine extends HeadScores {
  readonly model: Model;
  readonly config: ModelConfig;
  readonly runtime: Runtime;
  /** Rows of the embedding table: sequences of equal length -> [batch * length, H]. */
  embed(ids: readonly ArrayLike<number>[]): Promise<F32Tensor>;
  /** One block on x [batch * length, H]. Sequences start at position 0 and see only themselves. */
  runBlock(layer: number, x: F32Tensor, options: RunBlockOptions): Promise<BlockRun>;
  /** Embedding and all blocks: the residual stream before the final norm, [batch * length, H]. */
  forward(ids: readonly ArrayLike<number>[], options?: { signal?: AbortSignal }): Promise<F32Tensor>;
  /** Programs and weights, for `generate`. */
  readonly parts: EngineParts;
}

export interface EngineParts {
  programs: Programs;
  weights: WeightCache;
}

/** The model stays the caller's to close. */
export function createEngine(
  runtime: Runtime,
  model: Model,
  { cacheBytes = defaultCacheBytes(model.config), headBytes, rounding }: EngineOptions = {},
): Engine {
  const { config } = model;
  const programs = createPrograms(runtime, config, rounding);
  const source = rounding ? roundWeights(model.weights, rounding) : model.weights;
  const weights = createWeightCache({ ...model, weights: source }, cacheBytes);
  const tables = createTables(config);

  const embed: Engine["embed"] = async (ids) => {
    checkEqualLengths(ids);
    return embedRows(weights, config, ids);
  };

  const runBlock: Engine["runBlock"] = async (layer, x, options) => {
    const { batch, length, taps = false, into = f32Tensor(x.shape) } = options;
    const block = options.block ?? config.blocks[layer]!;
    const own = options.weights ?? new Map(Object.entries(await weights.block(layer)));
    if (!options.weights) weights.prefetch(layer + 1);
    if (block.attention.kind === "none" && block.ffn.kind === "none") return identityRun(x, taps);
    const program = await programs.block(block, { batch, length, taps });
    const rotary = block.attention.kind === "gqa" ? tables(length) : {};
    const result = await program.run({ x, ...rotary, ...weightsFor(config, block, own) }, { output: into });
    return blockRun(result as Record<string, F32Tensor>, taps);
  };

  const forward: Engine["forward"] = async (ids, { signal } = {}) => {
    let x = await embed(ids);
    let spare = f32Tensor(x.shape);
    for (let layer = 0; layer < config.blocks.length; layer++) {
      signal?.throwIfAborted();
      const { output } = await runBlock(layer, x, { batch: ids.length, length: ids[0]!.length, into: spare });
      if (output !== x) [x, spare] = [output, x];
    }
    return x;
  };

  const scores = createHeadScores({ model, programs, weights, ...(headBytes !== undefined && { headBytes }) });
  return { model, config, runtime, embed, runBlock, forward, ...scores, parts: { programs, weights } };
}

/** What the block's program takes; a layer's own weights may be more than a half of its block needs. */
function weightsFor(
  config: ModelConfig,
  block: BlockConfig,
  from: ReadonlyMap<string, HostTensor>,
): Record<string, HostTensor> {
  const entries = blockWeights(config, block).map(({ name }) => [name, from.get(name) ?? missingWeight(name)] as const);
  return Object.fromEntries(entries);
}

function missingWeight(name: string): never {
  return internal(`no ${name} among the weights of the block`);
}

/** Rotary tables from position 0, kept by length. */
function createTables(config: ModelConfig): (length: number) => RotaryTables {
  const known = new Map<number, RotaryTables>();
  return (length) => {
    const found = known.get(length) ?? rotaryTables(config, positionsFrom(0, length));
    known.set(length, found);
    return found;
  };
}

function identityRun(x: F32Tensor, taps: boolean): BlockRun {
  return taps ? { output: x, afterAttention: x, taps: {} } : { output: x };
}

function blockRun({ output, afterAttention, ...taps }: Record<string, F32Tensor>, wanted: boolean): BlockRun {
  return wanted ? { output: output!, afterAttention: afterAttention!, taps } : { output: output! };
}

/**
 * Rows of the embedding table: sequences of equal length -> [sequences * length, H].
 * @throws EspalierError for an id outside the table, with its place
 */
export async function embedRows(
  weights: WeightCache,
  { vocabSize, hiddenSize: width }: ModelConfig,
  sequences: readonly ArrayLike<number>[],
): Promise<F32Tensor> {
  const name = "model.embed_tokens.weight";
  const length = sequences[0]?.length ?? 0;
  const places = new Map<number, number[]>();
  sequences.forEach((ids, sequence) => {
    for (let t = 0; t < length; t++) {
      const id = ids[t]!;
      if (!(Number.isInteger(id) && id >= 0 && id < vocabSize)) throw unknownId(id, sequence, t, vocabSize);
      const known = places.get(id) ?? [];
      places.set(id, known);
      known.push(sequence * length + t);
    }
  });
  const rows = f32Tensor([sequences.length * length, width]);
  for (const [id, at] of places) {
    const { data } = await weights.readRows(name, id, id + 1);
    for (const place of at) rows.data.set(data, place * width);
  }
  return rows;
}

function unknownId(id: number, sequence: number, at: number, vocabulary: number): EspalierError {
  return new EspalierError({
    where: `token ${at} of sequence ${sequence}`,
    expected: `an id below ${vocabulary}, the rows of the embedding table`,
    found: `${id}`,
    fix: "use the tokenizer that belongs to this model",
  });
}

function checkEqualLengths(ids: readonly ArrayLike<number>[]): void {
  const length = ids[0]?.length ?? 0;
  if (length > 0 && ids.every((row) => row.length === length)) return;
  throw new EspalierError({
    where: "token ids",
    expected: "at least one sequence, all of one length of at least 1",
    found: `lengths ${ids.map((row) => row.length).join(", ") || "of nothing"}`,
  });
}

/**
 * @module Graphs of a whole model for many sequences at once, weights as inputs: a prompt, and one step of a batch. A
 * program for each layer, as the engine has them, costs a call for each; here a step is one call.
 */
import { createGraph, type GraphBuilder, type Value } from "../../graph/index.js";
import {
  attendWithin,
  type BlockInputs,
  type BlockRounded,
  buildBlock,
  buildEmbedding,
  buildHead,
  type HeadsQkv,
  type HeadWeights,
  headWeightName,
  int8MatrixNames,
  type LoraConfig,
  layerPrefix,
  loraWeights,
  type ModelConfig,
  modelWeightInputs,
  modelWeights,
  roundByBlocks,
} from "../../models/index.js";
import type { Program, Runtime } from "../../runtime/index.js";
import type { HostTensor } from "../../tensor/index.js";

/**
 * What a program gives of its logits. `greedy`: the likeliest token; `unit`: odds at temperature 1; `tempered`: odds at
 * the temperature of the input `inverseTemperature` [1].
 */
export type Choice = "greedy" | "unit" | "tempered";

/** What stands beside or in place of the weights. */
export interface WeightForm {
  /** Adapters are inputs too, by the names of `loraWeights`. Defaults to none. */
  lora?: LoraConfig;
  /** Constants in place of matrices, for steps. Defaults to none. */
  rounded?: RoundedMatrices;
}

/** Matrices in 8 bits, for steps of few sequences: reading them is what a step's time goes into. */
export interface RoundedMatrices {
  /** Those of the blocks, by their full names. */
  blocks: Readonly<Record<string, BlockRounded>>;
  head: BlockRounded;
}

/** The blocks' matrices and the head in 8 bits. */
export function roundMatrices(config: ModelConfig, tensors: Readonly<Record<string, HostTensor>>): RoundedMatrices {
  const names = [...int8MatrixNames(config)];
  return {
    blocks: Object.fromEntries(names.map((name) => [name, roundByBlocks(tensors[name]!)])),
    head: roundByBlocks(tensors[headWeightName(config)]!),
  };
}

/** Shape of one step: sequences, and positions that each has room for. */
export interface StepShape {
  width: number;
  capacity: number;
  choice: Choice;
}

/** Shape of a prompt's run: one sequence, padded to `length`. */
export interface PromptShape {
  length: number;
  choice: Choice;
}

/**
 * Inputs, besides the weights under their full names: ids i64 [width], cos and sin [width, 1, D/2], mask
 * [width, capacity] (0 where written), and for each layer L with attention `keys.L`, `values.L`
 * [width, kvHeads, capacity, D].
 * Outputs: `newKeys.L`, `newValues.L` [width, kvHeads, 1, D], and those of `outputChoice`.
 */
export function compileStep(
  runtime: Runtime,
  config: ModelConfig,
  { width, capacity, choice }: StepShape,
  form: WeightForm = {},
): Promise<Program> {
  const plain = createGraph(`decode step ${width} of ${capacity} ${choice}`);
  const { g, weights, head } = declareWeights(plain, config, form);
  const mask = g.reshape(g.input("mask", [width, capacity]), [width, 1, 1, capacity]);
  const ids = g.input("ids", [width, 1], "i64");
  const attendFor = (layer: number, kvHeads: number) => {
    const past = [width, kvHeads, capacity, config.headDim];
    const cached = { keys: g.input(`keys.${layer}`, past), values: g.input(`values.${layer}`, past), mask };
    return (heads: HeadsQkv) => attendToSlots(g, heads, cached);
  };
  const x = buildStream(g, config, weights, { ids, batch: width, length: 1, attendFor, form });
  outputChoice(g, config, x, { norm: weights["model.norm.weight"]!, head }, choice);
  return runtime.compile(g);
}

/**
 * Inputs, besides the weights: ids i64 [1, length], last i64 [1] (row of the prompt's last token), cos and sin
 * [1, length, D/2]. Outputs: `newKeys.L`, `newValues.L` [1, kvHeads, length, D], and those of `outputChoice` of the last.
 */
export function compilePrompt(
  runtime: Runtime,
  config: ModelConfig,
  { length, choice }: PromptShape,
  form: Pick<WeightForm, "lora"> = {},
): Promise<Program> {
  const { g, weights, head } = declareWeights(createGraph(`prompt ${length} ${choice}`), config, form);
  const ids = g.input("ids", [1, length], "i64");
  const attendFor = () => (heads: HeadsQkv, inputs: BlockInputs) => attendWithin(g, heads, inputs);
  const x = buildStream(g, config, weights, { ids, batch: 1, length, attendFor, form });
  const last = g.gather(x, g.input("last", [1], "i64"));
  outputChoice(g, config, last, { norm: weights["model.norm.weight"]!, head }, choice);
  return runtime.compile(g);
}

type Attend = (heads: HeadsQkv, inputs: BlockInputs) => Value;

interface StreamShape {
  ids: Value;
  batch: number;
  length: number;
  attendFor: (layer: number, kvHeads: number) => Attend;
  form: WeightForm;
}

/** Embedding and all blocks: [batch * length, H]. New keys and values of every layer become outputs. */
function buildStream(
  g: GraphBuilder,
  config: ModelConfig,
  weights: Record<string, Value>,
  { ids, batch, length, attendFor, form: { lora } }: StreamShape,
): Value {
  const table = [batch, length, config.headDim / 2];
  const shared = { batch, length, cos: g.input("cos", table), sin: g.input("sin", table) };
  let x = buildEmbedding(g, weights["model.embed_tokens.weight"]!, ids);
  config.blocks.forEach((block, layer) => {
    const own = layerWeights(weights, layer);
    const inputs: BlockInputs = { ...shared, x, weights: own, ...(lora && { loraAlpha: lora.alpha }) };
    if (block.attention.kind === "gqa") {
      const attend = attendFor(layer, block.attention.kvHeads);
      inputs.attend = (heads) => {
        g.output(`newKeys.${layer}`, heads.k);
        g.output(`newValues.${layer}`, heads.v);
        return attend(heads, inputs);
      };
    }
    x = buildBlock(g, config, block, inputs).output;
  });
  return x;
}

function layerWeights(weights: Record<string, Value>, layer: number): Record<string, Value> {
  const prefix = layerPrefix(layer);
  const own = Object.entries(weights).filter(([name]) => name.startsWith(prefix));
  return Object.fromEntries(own.map(([name, value]) => [name.slice(prefix.length), value]));
}

/**
 * One new token of each sequence attends to itself and to its slot of the cache. It stands first among the scores, so
 * that a position has the same place in every sum whatever the capacity, and sums round alike.
 */
function attendToSlots(
  g: GraphBuilder,
  { q, k, v }: HeadsQkv,
  { keys, values, mask }: { keys: Value; values: Value; mask: Value },
): Value {
  const [width, kvHeads, capacity, D] = keys.shape as [number, number, number, number];
  const alpha = 1 / Math.sqrt(D);
  const grouped = g.reshape(q, [width, kvHeads, -1, D]); // query heads of one kv head lie below each other
  const past = g.add(g.matmul(grouped, keys, { transposeB: true, alpha }), mask); // [B, kv, group, capacity]
  const own = g.matmul(grouped, k, { transposeB: true, alpha }); // [B, kv, group, 1]
  const p = g.softmax(g.concat([own, past], 3));
  const [pOwn, pPast] = g.split(p, 3, [1, capacity]) as [Value, Value];
  return g.reshape(g.add(g.matmul(pPast, values), g.mul(pOwn, v)), q.shape);
}

/**
 * Outputs of the head for x [rows, H]. `total` [rows]: sum of exp(logit - largest), whose logarithm normalises the
 * untruncated distribution at temperature 1; `best` i64 [rows]: the likeliest token (greedy); `odds` [rows, V]:
 * exp((logit - largest) / temperature) (otherwise).
 */
function outputChoice(g: GraphBuilder, config: ModelConfig, x: Value, head: HeadWeights, choice: Choice): void {
  const logits = buildHead(g, config, x, head); // [rows, V]
  const below = g.sub(logits, g.max(logits, { axes: [-1], keepDims: true }));
  const odds = g.exp(below);
  g.output("total", g.sum(odds, { axes: [-1] }));
  if (choice === "greedy") g.output("best", g.argMax(logits));
  if (choice === "unit") g.output("odds", odds);
  if (choice === "tempered") g.output("odds", g.exp(g.mul(below, g.input("inverseTemperature", [1]))));
}

interface Declared {
  /** Its linear layers take what `weights` and `head` are. */
  g: GraphBuilder;
  weights: Record<string, Value>;
  head: Value;
}

function declareWeights(plain: GraphBuilder, config: ModelConfig, { lora, rounded }: WeightForm): Declared {
  const adapters = lora ? loraWeights(config, lora).map(({ name, shape }) => [name, plain.input(name, shape)]) : [];
  if (!rounded) {
    const weights = modelWeightInputs(plain, config);
    const head = weights[headWeightName(config)]!;
    return { g: weightsFirst(plain), weights: { ...weights, ...Object.fromEntries(adapters) }, head };
  }
  const steps = new Map<Value, Value>();
  const constant = (matrix: BlockRounded) => {
    const levels = plain.constant(matrix.levels);
    steps.set(levels, plain.constant(matrix.steps));
    return levels;
  };
  const entries = modelWeights(config)
    .filter(({ name }) => name !== "lm_head.weight")
    .map(({ name, shape }) => {
      const matrix = rounded.blocks[name];
      return [name, matrix ? constant(matrix) : plain.input(name, shape)] as const;
    });
  const weights = { ...Object.fromEntries(entries), ...Object.fromEntries(adapters) };
  return { g: roundedFirst(plain, steps), weights, head: constant(rounded.head) };
}

/** A builder whose linear layers take matrices in 8 bits, where they are among those with `steps`. */
function roundedFirst(g: GraphBuilder, steps: ReadonlyMap<Value, Value>): GraphBuilder {
  const linear: GraphBuilder["linear"] = (x, weight, bias) => {
    const own = steps.get(weight);
    if (!own) return g.linear(x, weight, bias);
    const product = g.int8BlockLinear(x, weight, own);
    return bias ? g.add(product, bias) : product;
  };
  return { ...g, linear };
}

/**
 * A builder whose linear layers are W x^T, transposed. The library packs the right operand of a product anew in each
 * call: of few rows that is cheap, of a weight it takes as long as the product itself. Three axes keep the library from
 * turning the product round again.
 */
function weightsFirst(g: GraphBuilder): GraphBuilder {
  const linear: GraphBuilder["linear"] = (x, weight, bias) => {
    const [rows, out] = [x.shape[0]!, weight.shape[0]!];
    const columns = g.reshape(g.matmul(weight, x, { transposeB: true }), [1, out, rows]);
    const product = g.reshape(g.transpose(columns, [0, 2, 1]), [rows, out]);
    return bias ? g.add(product, bias) : product;
  };
  return { ...g, linear };
}

/**
 * @module Frozen matrices of the blocks in 8 bits, for products of whole numbers: steps by output channel, and activations
 * rounded row by row. Before that, channels of the input are scaled towards the weights, so that a few large ones do not
 * take all steps from the others (SmoothQuant, arXiv:2211.10438, eq. 4, migration strength 0.5).
 *
 * Departures: the scales stay beside the matrices and are applied to the input, as the norm's weights are needed
 * unscaled by adapters; the gradient has a rounded matrix of its own.
 */
import type { GraphBuilder, GraphDType, Value } from "../graph/index.js";
import { int8Steps, int8Zero } from "../graph/index.js";
import { f32Tensor, type HostTensor } from "../tensor/index.js";
import { type BlockConfig, blockWeights, layerPrefix, type ModelConfig, type WeightInfo } from "./config.js";
import type { BlockTaps } from "./llama.js";

/** Names of what stands in for the matrix of the layer `name` (without `.weight`). */
export function int8Names(name: string) {
  return {
    matrix: `${name}.int8`,
    steps: `${name}.int8_steps`,
    back: `${name}.int8_back`,
    backSteps: `${name}.int8_back_steps`,
  };
}

/** Where the input of a linear layer is made; layers of one place share the scales of its channels. */
const places = {
  q_proj: "input_layernorm",
  k_proj: "input_layernorm",
  v_proj: "input_layernorm",
  linear_attn: "input_layernorm",
  o_proj: "self_attn.o_proj",
  gate_proj: "post_attention_layernorm",
  up_proj: "post_attention_layernorm",
  linear_mlp: "post_attention_layernorm",
  down_proj: "mlp.down_proj",
} as const;

/** Name of the scales [in] of the input channels of a layer, by its short name such as `self_attn.q_proj`. */
export function int8ScaleName(layer: string): string {
  return `${places[layer.slice(layer.lastIndexOf(".") + 1) as keyof typeof places]}.int8_scale`;
}

/** The inputs of a block's linear layers, by the names of their scales. */
export function int8Places({ attentionInput, attentionHeads, ffnInput, ffnHidden }: BlockTaps): [string, Value][] {
  const inputs = { q_proj: attentionInput, o_proj: attentionHeads, up_proj: ffnInput, down_proj: ffnHidden };
  return Object.entries(inputs).flatMap(([layer, value]): [string, Value][] =>
    value ? [[int8ScaleName(layer), value]] : [],
  );
}

export interface Int8Input extends WeightInfo {
  dtype: GraphDType;
}

interface Int8Layer {
  /** Short name without `.weight`. */
  name: string;
  prefix: string;
  out: number;
  inner: number;
}

/** The linear layers of a block. */
function linearLayersOf(config: ModelConfig, block: BlockConfig, prefix: string): Int8Layer[] {
  return blockWeights(config, block)
    .filter(({ shape }) => shape.length === 2)
    .map(({ name, shape }) => ({ name: name.replace(/\.weight$/, ""), prefix, out: shape[0]!, inner: shape[1]! }));
}

function allLayers(config: ModelConfig): Int8Layer[] {
  return config.blocks.flatMap((block, layer) => linearLayersOf(config, block, layerPrefix(layer)));
}

/** Full names of the matrices that have a form in 8 bits: every linear layer of the blocks. */
export function int8MatrixNames(config: ModelConfig): Set<string> {
  return new Set(allLayers(config).map(({ prefix, name }) => `${prefix}${name}.weight`));
}

/** Inputs in place of those matrices, under their full names. */
export function int8Inputs(config: ModelConfig): Int8Input[] {
  const inputs = new Map<string, Int8Input>();
  for (const { prefix, name, out, inner } of allLayers(config)) {
    const names = int8Names(prefix + name);
    const own: Int8Input[] = [
      { name: prefix + int8ScaleName(name), shape: [inner], dtype: "f32" },
      { name: names.matrix, shape: [inner, out], dtype: "i8" },
      { name: names.steps, shape: [out], dtype: "f32" },
      { name: names.back, shape: [out, inner], dtype: "i8" },
      { name: names.backSteps, shape: [inner], dtype: "f32" },
    ];
    for (const input of own) inputs.set(input.name, input);
  }
  return [...inputs.values()];
}

/** Graph values of a layer in 8 bits among `weights` (short names); `undefined` where it has none. */
export function int8LayerOf(weights: Readonly<Record<string, Value>>, name: string) {
  const names = int8Names(name);
  const matrix = weights[names.matrix];
  if (!matrix) return undefined;
  const operands = {
    matrix,
    steps: weights[names.steps]!,
    back: weights[names.back]!,
    backSteps: weights[names.backSteps]!,
  };
  return { operands, scale: weights[int8ScaleName(name)]! };
}

/** x [rows, in] through the layer, [rows, out]. */
export function int8Product(g: GraphBuilder, layer: NonNullable<ReturnType<typeof int8LayerOf>>, x: Value): Value {
  return g.int8Linear(g.mul(x, layer.scale), layer.operands);
}

/** Short names of a block's values in 8 bits. */
export function int8BlockNames(config: ModelConfig, block: BlockConfig): string[] {
  const layers = linearLayersOf(config, block, "");
  return [...new Set(layers.flatMap(({ name }) => [int8ScaleName(name), ...Object.values(int8Names(name))]))];
}

/**
 * The matrices of all linear layers in 8 bits.
 *
 * @param weights full names, f32
 * @param largest largest magnitude of each input channel on some text, by the full name of its scales; channels that are
 *   nowhere above 0 keep their scale
 */
export function roundToInt8(
  config: ModelConfig,
  weights: Readonly<Record<string, HostTensor>>,
  largest: Readonly<Record<string, Float32Array>>,
): Record<string, HostTensor> {
  const rounded: Record<string, HostTensor> = {};
  const layers = allLayers(config);
  const matrixOf = ({ prefix, name }: Int8Layer) => weights[`${prefix}${name}.weight`]!.data as Float32Array;
  const scaleOf = ({ prefix, name }: Int8Layer) => prefix + int8ScaleName(name);
  for (const place of new Set(layers.map(scaleOf))) {
    const sharing = layers.filter((layer) => scaleOf(layer) === place);
    const scale = channelScales(sharing.map(matrixOf), largest[place]!);
    rounded[place] = f32Tensor([scale.length], scale);
    for (const layer of sharing) Object.assign(rounded, roundLayer(layer, matrixOf(layer), scale));
  }
  return rounded;
}

/** sqrt(largest weight / largest activation) of each input channel. */
function channelScales(matrices: readonly Float32Array[], largest: Float32Array): Float32Array {
  const heaviest = new Float32Array(largest.length);
  for (const matrix of matrices) raiseTo(heaviest, matrix);
  return heaviest.map((weight, i) => (weight > 0 && largest[i]! > 0 ? Math.sqrt(weight / largest[i]!) : 1));
}

/** Raises each column's number to the largest magnitude in the column. */
function raiseTo(columns: Float32Array, matrix: Float32Array): void {
  for (let row = 0; row < matrix.length; row += columns.length) {
    for (let i = 0; i < columns.length; i++) {
      const size = Math.abs(matrix[row + i]!);
      if (size > columns[i]!) columns[i] = size;
    }
  }
}

function roundLayer(
  { prefix, name, out, inner }: Int8Layer,
  weight: Float32Array,
  scale: Float32Array,
): Record<string, HostTensor> {
  const names = int8Names(prefix + name);
  const scaled = new Float32Array(weight.length);
  const rows = new Float32Array(out);
  for (let o = 0; o < out; o++) {
    for (let i = 0; i < inner; i++) {
      const value = weight[o * inner + i]! / scale[i]!;
      scaled[o * inner + i] = value;
      if (Math.abs(value) > rows[o]!) rows[o] = Math.abs(value);
    }
  }
  const columns = new Float32Array(inner);
  raiseTo(columns, scaled);
  const [perStep, perBackStep] = [rows, columns].map((sizes) => sizes.map((size) => (size > 0 ? int8Steps / size : 0)));
  const [matrix, back] = [new Int8Array(inner * out), new Int8Array(out * inner)];
  for (let o = 0; o < out; o++) {
    for (let i = 0; i < inner; i++) {
      const value = scaled[o * inner + i]!;
      matrix[i * out + o] = Math.round(value * perStep![o]!);
      back[o * inner + i] = Math.round(value * perBackStep![i]!);
    }
  }
  const steps = (sizes: Float32Array) =>
    f32Tensor(
      [sizes.length],
      sizes.map((size) => size / int8Steps),
    );
  return {
    [names.matrix]: { dtype: "i8", shape: [inner, out], data: matrix },
    [names.steps]: steps(rows),
    [names.back]: { dtype: "i8", shape: [out, inner], data: back },
    [names.backSteps]: steps(columns),
  };
}

/** A constant matrix for `int8BlockLinear`. */
export interface BlockRounded {
  /** u8 [out, blocks, size], zero at 128. */
  levels: HostTensor;
  /** f32 [out * blocks] */
  steps: HostTensor;
}

/** A matrix [out, in] in 8 bits by blocks of `size` inputs; the last block is filled up with zeros. */
export function roundByBlocks({ shape, data }: HostTensor, size = 32): BlockRounded {
  const [out, inner] = shape as [number, number];
  const blocks = Math.ceil(inner / size);
  const levels = new Uint8Array(out * blocks * size).fill(int8Zero);
  const steps = new Float32Array(out * blocks);
  for (let at = 0; at < steps.length; at++) {
    const [from, first] = [Math.floor(at / blocks) * inner, (at % blocks) * size];
    const own = (data as Float32Array).subarray(from + first, from + Math.min(first + size, inner));
    let largest = 0;
    for (const value of own) largest = Math.max(largest, Math.abs(value));
    steps[at] = largest / int8Steps;
    const perStep = largest > 0 ? int8Steps / largest : 0;
    for (let i = 0; i < own.length; i++) levels[at * size + i] = Math.round(own[i]! * perStep) + int8Zero;
  }
  return { levels: { dtype: "u8", shape: [out, blocks, size], data: levels }, steps: f32Tensor([steps.length], steps) };
}

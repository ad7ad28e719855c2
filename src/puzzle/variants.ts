/**
 * @module Training-free starts of the variants (arXiv:2411.19146, appendix A): the weights of a smaller sub-block
 * out of the parent's.
 *
 * - Feed-forward channels by "channel contribution" (or as `channel-order.ts` says), gate, up and down cut alike.
 * - Fewer kv heads by averaging the key and value projections of adjacent heads (Ainslie et al., arXiv:2305.13245).
 * - Linear attention W = Wo repeat(Wv): what attention computes when each token attends to itself alone.
 * - Linear feed-forward W = Wdown Wup: the gate is ignored.
 *
 * Departures: none; every start may be followed by a closed-form refit (`refit.ts`).
 */
import { internal } from "../base/index.js";
import type { ModelConfig } from "../models/index.js";
import { type F32Tensor, f32Tensor, type HostTensor } from "../tensor/index.js";
import { asF32 } from "./refit.js";

/** Weights of one sub-block, by checkpoint name without the layer (`mlp.down_proj.weight`). */
export type SubBlock = ReadonlyMap<string, HostTensor>;

/** Matrix product of row-major f32 matrices; `a` [p, q] times `b` [q, r]. */
export type Multiply = (a: F32Tensor, b: F32Tensor) => Promise<F32Tensor>;

export const names = {
  attentionNorm: "input_layernorm.weight",
  q: "self_attn.q_proj",
  k: "self_attn.k_proj",
  v: "self_attn.v_proj",
  o: "self_attn.o_proj",
  linearAttention: "self_attn.linear_attn.weight",
  ffnNorm: "post_attention_layernorm.weight",
  gate: "mlp.gate_proj",
  up: "mlp.up_proj",
  down: "mlp.down_proj",
  linearFfn: "mlp.linear_mlp.weight",
} as const;

/**
 * Contribution of every feed-forward channel: `meanAbsolute` [I] of the input of `down_proj` over the calibration
 * tokens, times the norm of the channel's column in `down_proj` [H, I].
 */
export function channelContribution(meanAbsolute: Float64Array, down: HostTensor): Float64Array {
  const norms = columnNorms(down);
  return meanAbsolute.map((value, channel) => value * norms[channel]!);
}

function columnNorms(matrix: HostTensor): Float64Array {
  const [rows, columns] = matrix.shape as [number, number];
  const data = asF32(matrix);
  const squares = new Float64Array(columns);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) squares[c]! += data[r * columns + c]! ** 2;
  return squares.map(Math.sqrt);
}

/** The feed-forward sub-block with only the channels `kept`, in that order. */
export function sliceFfn(parent: SubBlock, kept: ArrayLike<number>): SubBlock {
  const child = new Map<string, HostTensor>();
  for (const [name, tensor] of parent) {
    if (name.startsWith(names.gate) || name.startsWith(names.up)) child.set(name, takeRows(tensor, kept));
    else if (name === `${names.down}.weight`) child.set(name, takeColumns(tensor, kept));
    else child.set(name, tensor);
  }
  return child;
}

function takeRows(tensor: HostTensor, kept: ArrayLike<number>): F32Tensor {
  const width = tensor.shape[1] ?? 1;
  const source = asF32(tensor);
  const data = new Float32Array(kept.length * width);
  for (let r = 0; r < kept.length; r++) {
    data.set(source.subarray(kept[r]! * width, (kept[r]! + 1) * width), r * width);
  }
  return f32Tensor([kept.length, ...tensor.shape.slice(1)], data);
}

function takeColumns(tensor: HostTensor, kept: ArrayLike<number>): F32Tensor {
  const [rows, columns] = tensor.shape as [number, number];
  const source = asF32(tensor);
  const data = new Float32Array(rows * kept.length);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < kept.length; c++) data[r * kept.length + c] = source[r * columns + kept[c]!]!;
  }
  return f32Tensor([rows, kept.length], data);
}

/** The attention sub-block with `to` key-value heads, each the mean of `from / to` adjacent ones; query heads stay. */
export function mergeKvHeads(
  { headDim }: Pick<ModelConfig, "headDim">,
  parent: SubBlock,
  { from, to }: { from: number; to: number },
): SubBlock {
  if (from % to !== 0) internal(`${from} kv heads cannot be merged into ${to}`);
  const child = new Map<string, HostTensor>();
  for (const [name, tensor] of parent) {
    const isKv = name.startsWith(names.k) || name.startsWith(names.v);
    child.set(name, isKv ? averageHeads(tensor, { groups: to, size: from / to, headDim }) : tensor);
  }
  return child;
}

/** Rows [groups * size * headDim, ...] averaged over the `size` heads of each group. */
function averageHeads(tensor: HostTensor, shape: { groups: number; size: number; headDim: number }): F32Tensor {
  const { groups, size, headDim } = shape;
  const head = headDim * (tensor.shape[1] ?? 1);
  const source = asF32(tensor);
  const data = new Float32Array(groups * head);
  for (let group = 0; group < groups; group++) {
    for (let i = 0; i < head; i++) {
      let sum = 0;
      for (let member = 0; member < size; member++) sum += source[(group * size + member) * head + i]!;
      data[group * head + i] = sum / size;
    }
  }
  return f32Tensor([groups * headDim, ...tensor.shape.slice(1)], data);
}

/** One matrix [H, H] after the norm in place of attention: Wo repeat(Wv). Biases are left to the refit. */
export async function linearAttention(
  { heads, headDim }: Pick<ModelConfig, "heads" | "headDim">,
  parent: SubBlock,
  kvHeads: number,
  multiply: Multiply,
): Promise<SubBlock> {
  const value = requireWeight(parent, `${names.v}.weight`);
  const group = heads / kvHeads;
  const rows = Array.from({ length: heads * headDim }, (_, row) => {
    const head = Math.floor(row / headDim);
    return Math.floor(head / group) * headDim + (row % headDim);
  });
  const product = await multiply(matrix(parent, `${names.o}.weight`), takeRows(value, rows)); // [H, H]
  return new Map([
    [names.attentionNorm, requireWeight(parent, names.attentionNorm)],
    [names.linearAttention, product],
  ]);
}

/** One matrix [H, H] after the norm in place of the feed-forward: Wdown Wup. */
export async function linearFfn(parent: SubBlock, multiply: Multiply): Promise<SubBlock> {
  const product = await multiply(matrix(parent, `${names.down}.weight`), matrix(parent, `${names.up}.weight`));
  return new Map([
    [names.ffnNorm, requireWeight(parent, names.ffnNorm)],
    [names.linearFfn, product],
  ]);
}

/** The same sub-block with one tensor replaced. */
export function withWeight(block: SubBlock, name: string, tensor: HostTensor): SubBlock {
  return new Map(block).set(name, tensor);
}

export function requireWeight(block: SubBlock, name: string): HostTensor {
  return block.get(name) ?? internal(`sub-block without ${name}`);
}

export function matrix(block: SubBlock, name: string): F32Tensor {
  const tensor = requireWeight(block, name);
  return f32Tensor(tensor.shape, asF32(tensor));
}

/** [r, c] -> [c, r] */
export function transposed(tensor: HostTensor): F32Tensor {
  const [rows, columns] = tensor.shape as [number, number];
  const source = asF32(tensor);
  const data = new Float32Array(rows * columns);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) data[c * rows + r] = source[r * columns + c]!;
  return f32Tensor([columns, rows], data);
}

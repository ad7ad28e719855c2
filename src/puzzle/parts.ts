/**
 * @module Running half a block. A block is two residual sub-layers in a row, so its attention half alone is the block
 * whose feed-forward is `none`, and the other way round; pairs of variants need each half once.
 */
import { internal } from "../base/index.js";
import type { BlockRun, BlockTaps, Engine } from "../engine/index.js";
import {
  type AttentionConfig,
  attentionWeights,
  type BlockConfig,
  type FfnConfig,
  ffnWeights,
  layerPrefix,
  type Model,
} from "../models/index.js";
import type { F32Tensor, HostTensor } from "../tensor/index.js";
import type { Part } from "./space.js";
import type { SubBlock } from "./variants.js";

/** Hidden states [batch * length, H] and the shape they stand for. */
export interface Rows {
  x: F32Tensor;
  batch: number;
  length: number;
}

/** A sub-block to run: what it is and its weights; without weights, the layer's own. */
export type HalfBlock =
  | { part: "attention"; config: AttentionConfig; weights?: SubBlock }
  | { part: "ffn"; config: FfnConfig; weights?: SubBlock };

export interface HalfRun {
  output: F32Tensor;
  taps: BlockTaps;
}

/** Residual stream after one half of a block. */
export async function runHalf(
  engine: Engine,
  layer: number,
  half: HalfBlock,
  { x, batch, length }: Rows,
  { taps = false }: { taps?: boolean } = {},
): Promise<HalfRun> {
  if (half.config.kind === "none") return { output: x, taps: {} };
  const run = await engine.runBlock(layer, x, {
    batch,
    length,
    block: halfBlockConfig(half),
    ...(half.weights && { weights: half.weights }),
    taps,
  });
  return { output: run.output, taps: run.taps ?? {} };
}

/** The block that is one half and nothing else. */
export function halfBlockConfig(half: HalfBlock): BlockConfig {
  return half.part === "attention"
    ? { attention: half.config, ffn: { kind: "none" } }
    : { attention: { kind: "none" }, ffn: half.config };
}

/** The layer's own block with all that it shows of itself. */
export async function runTapped(
  engine: Engine,
  layer: number,
  { x, batch, length }: Rows,
): Promise<Required<BlockRun>> {
  const { output, afterAttention, taps } = await engine.runBlock(layer, x, { batch, length, taps: true });
  return { output, afterAttention: tapped(afterAttention), taps: taps ?? {} };
}

export function tapped(tap: F32Tensor | undefined): F32Tensor {
  return tap ?? internal("a block without the tap that was asked of it");
}

/** The weights of one half of a layer, read from the model's files. */
export async function readSubBlock(model: Model, layer: number, part: Part): Promise<SubBlock> {
  const block = model.config.blocks[layer]!;
  const list =
    part === "attention" ? attentionWeights(model.config, block.attention) : ffnWeights(model.config, block.ffn);
  const weights = new Map<string, HostTensor>();
  for (const { name } of list) weights.set(name, await model.weights.read(layerPrefix(layer) + name));
  return weights;
}

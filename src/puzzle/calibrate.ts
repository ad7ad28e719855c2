/**
 * @module One streamed pass of the parent over calibration text: block by block, each over all sequences before the
 * next is read. Leaves the sums from which every start and refit is computed, and the residual stream. Memory: one block, its sums and one batch
 * of activations.
 */
import { join } from "node:path";
import { fileExists, internal } from "../base/index.js";
import type { AttentionConfig } from "../models/index.js";
import type { Runtime } from "../runtime/index.js";
import { type F32Tensor, f32Tensor, type HostTensor } from "../tensor/index.js";
import { type CaptureRequest, captureEmbedding, captureLayer } from "./capture.js";
import { createMatrixKernels, type GramSums, type MatrixKernels } from "./moments.js";
import { type Rows, readSubBlock, runHalf, runTapped, tapped } from "./parts.js";
import { asF32, type Moments, type Sums, wideInputs } from "./refit.js";
import { type LayerSpace, layerSpace, type Space } from "./space.js";
import { layerName, readTensors, writeTensors } from "./tensor-files.js";
import { mergeKvHeads, names } from "./variants.js";

export interface CalibrateRequest extends CaptureRequest {
  runtime: Runtime;
  space: Space;
}

/** What calibration knows of one layer; what no variant of the layer needs is absent. */
export interface LayerStatistics {
  /** Mean |x| of each input of `down_proj`, [I]. */
  channels?: Float64Array;
  /** Sum of x x^T over the inputs of `down_proj`, [I, I]. */
  hidden?: Sums;
  /** Normed input of attention against what attention adds. */
  attention?: Moments;
  /** Normed input of the feed-forward against what it adds. */
  ffn?: Moments;
  /** By number of kv heads: the merged heads' output against what the parent's attention adds, `o_proj`'s bias left out. */
  merged: Map<number, Moments>;
}

/**
 * Writes one file of sums for each layer, and leaves the parent's stream as `capture` does. A layer whose file is there
 * already is not computed again.
 */
export async function calibrate(request: CalibrateRequest): Promise<void> {
  const { engine, text, directory, onEvent, signal } = request;
  const layers = engine.config.blocks.length;
  const kernels = createMatrixKernels(request.runtime);
  const first = await firstMissing(directory, layers);
  if (first === 0) await captureEmbedding(engine, text, directory);
  for (let layer = first; layer < layers; layer++) {
    signal.throwIfAborted();
    const sums = await createLayerSums(request, layer, kernels);
    await captureLayer({ engine, layer, text, directory }, sums.add);
    await writeTensors(statisticsPath(directory, layer), sums.tensors());
    onEvent({ event: "progress", stage: "calibrate", done: layer + 1, total: layers, unit: "layers" });
  }
  kernels.dispose();
}

async function firstMissing(directory: string, layers: number): Promise<number> {
  for (let layer = 0; layer < layers; layer++) {
    if (!(await fileExists(statisticsPath(directory, layer)))) return layer;
  }
  return layers;
}

function statisticsPath(directory: string, layer: number): string {
  return join(directory, `${layerName(layer)}.safetensors`);
}

interface LayerSums {
  /** Runs the parent's block on one batch, adds what it saw, gives the block's output. */
  add(rows: Rows): Promise<F32Tensor>;
  tensors(): Map<string, HostTensor>;
}

async function createLayerSums(
  { engine, space }: CalibrateRequest,
  layer: number,
  kernels: MatrixKernels,
): Promise<LayerSums> {
  const { config, model } = engine;
  const { attention, ffn } = config.blocks[layer]!;
  const { hiddenSize: H, heads, headDim } = config;
  const offers = offeredKinds(layerSpace(space, layer));
  const weights = await readSubBlock(model, layer, "attention");
  const outputBias = weights.get(`${names.o}.bias`);
  const hidden = ffn.kind === "swiglu" && offers.narrower ? kernels.gram(ffn.width) : undefined;
  const linearAttention = offers.linearAttention ? kernels.moments(H, H) : undefined;
  const linearFfn = offers.linearFfn ? kernels.moments(H, H) : undefined;
  const merged = offers.fewerHeads.map((kvHeads) => ({
    config: { kind: "gqa", kvHeads } as const,
    weights: mergeKvHeads(config, weights, { from: kvHeadsOf(attention), to: kvHeads }),
    sums: kernels.moments(heads * headDim, H),
  }));
  return {
    async add(rows) {
      const { x } = rows;
      const { output, afterAttention, taps } = await runTapped(engine, layer, rows);
      await linearAttention?.add(tapped(taps.attentionInput), afterAttention, x);
      await linearFfn?.add(tapped(taps.ffnInput), output, afterAttention);
      await hidden?.add(tapped(taps.ffnHidden));
      const before = outputBias ? addToRows(x, asF32(outputBias)) : x;
      for (const { config, weights, sums } of merged) {
        const run = await runHalf(engine, layer, { part: "attention", config, weights }, rows, { taps: true });
        await sums.add(tapped(run.taps.attentionHeads), afterAttention, before);
      }
      return output;
    },
    tensors() {
      const tensors = new Map<string, HostTensor>();
      if (hidden) addGram(tensors, hidden);
      if (linearAttention) addMoments(tensors, "attention", linearAttention.moments);
      if (linearFfn) addMoments(tensors, "ffn", linearFfn.moments);
      for (const { config, sums } of merged) addMoments(tensors, `gqa ${config.kvHeads}`, sums.moments);
      return tensors;
    },
  };
}

interface Offers {
  narrower: boolean;
  linearFfn: boolean;
  linearAttention: boolean;
  fewerHeads: number[];
}

/** What a layer's variants need to know; the parent's own come first and need nothing. */
function offeredKinds({ attention, ffn }: LayerSpace): Offers {
  const attentions = attention.slice(1).map(({ config }) => config);
  const ffns = ffn.slice(1).map(({ config }) => config);
  return {
    narrower: ffns.some(({ kind }) => kind === "swiglu"),
    linearFfn: ffns.some(({ kind }) => kind === "linear"),
    linearAttention: attentions.some(({ kind }) => kind === "linear"),
    fewerHeads: attentions.flatMap((config) => (config.kind === "gqa" ? [config.kvHeads] : [])),
  };
}

export function kvHeadsOf(attention: AttentionConfig): number {
  return attention.kind === "gqa" ? attention.kvHeads : internal(`kv heads of ${attention.kind} attention`);
}

function addToRows(x: F32Tensor, bias: Float32Array): F32Tensor {
  const data = x.data.map((value, i) => value + bias[i % bias.length]!);
  return f32Tensor(x.shape, data);
}

function addGram(tensors: Map<string, HostTensor>, { gram, absolute, rows }: GramSums): void {
  const n = absolute.length;
  tensors.set("hidden.gram", f32Tensor([n, n], narrow(gram)));
  tensors.set(
    "hidden.meanAbsolute",
    f32Tensor(
      [n],
      Float32Array.from(absolute, (sum) => sum / rows),
    ),
  );
}

function addMoments(tensors: Map<string, HostTensor>, name: string, moments: Moments): void {
  const { gram, cross, targetSquares, n, m } = moments;
  tensors.set(`${name}.gram`, f32Tensor([n, n], narrow(gram)));
  tensors.set(`${name}.cross`, f32Tensor([n, m], narrow(cross)));
  tensors.set(`${name}.squares`, f32Tensor([1], [targetSquares]));
}

function narrow(sums: Sums): Float32Array {
  return sums instanceof Float32Array ? sums : Float32Array.from(sums);
}

/** Reads back what `calibrate` left for one layer. */
export async function readStatistics(directory: string, layer: number): Promise<LayerStatistics> {
  const tensors = await readTensors(statisticsPath(directory, layer));
  const wide = (name: string) => new Float64Array(asF32(tensors.get(name) ?? internal(`statistics without ${name}`)));
  /** Sums over `inputs` inputs, as they are taken. */
  const sums = (name: string, inputs: number): Sums =>
    inputs < wideInputs ? wide(name) : asF32(tensors.get(name) ?? internal(`statistics without ${name}`));
  const moments = (name: string): Moments => {
    const [n, m] = tensors.get(`${name}.cross`)!.shape as [number, number];
    return {
      gram: sums(`${name}.gram`, n),
      cross: sums(`${name}.cross`, n),
      targetSquares: wide(`${name}.squares`)[0]!,
      n,
      m,
    };
  };
  const merged = [...tensors.keys()].flatMap((name) => /^gqa (\d+)\.gram$/.exec(name)?.[1] ?? []);
  return {
    ...(tensors.has("hidden.gram") && {
      channels: wide("hidden.meanAbsolute"),
      hidden: sums("hidden.gram", tensors.get("hidden.meanAbsolute")!.shape[0]!),
    }),
    ...(tensors.has("attention.gram") && { attention: moments("attention") }),
    ...(tensors.has("ffn.gram") && { ffn: moments("ffn") }),
    merged: new Map(merged.map((kvHeads) => [Number(kvHeads), moments(`gqa ${kvHeads}`)])),
  };
}

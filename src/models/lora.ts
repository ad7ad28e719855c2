/**
 * @module Low-rank adapters (LoRA, arXiv:2106.09685, eq. 3): beside a frozen matrix W [out, in] stand A [r, in] and B
 * [out, r], and the layer computes W x + (alpha / r) B (A x).
 *
 * Departures: none. A starts as PEFT starts it (uniform, Kaiming with slope sqrt 5, that is within 1 / sqrt(in)), B at
 * zero, so that an adapter changes nothing before its first step. Biases are left alone.
 */
import { createRng, EspalierError } from "../base/index.js";
import { type F32Tensor, f32Tensor, type HostTensor, sizeOf } from "../tensor/index.js";
import {
  blockWeights,
  layerPrefix,
  type Model,
  type ModelConfig,
  type WeightInfo,
  type WeightSource,
} from "./config.js";
import { readWeightRows } from "./weights.js";

export interface LoraOptions {
  /** Rows of A. Defaults to 16. */
  rank?: number;
  /** The addition is scaled by alpha / rank. Defaults to twice the rank. */
  alpha?: number;
  /** Layers that get an adapter, by the last part of their name, such as `q_proj`. Defaults to all linear layers of the blocks. */
  targets?: readonly string[];
}

/** What an adapter is, all defaults resolved. */
export interface LoraConfig {
  rank: number;
  alpha: number;
  targets: readonly string[];
}

/** An adapter with its values, by the names of `loraWeights`. */
export interface LoraAdapter extends LoraConfig {
  tensors: Readonly<Record<string, F32Tensor>>;
}

/** Names of the two matrices beside the layer `name` (without `.weight`). */
export function loraNames(name: string): { a: string; b: string } {
  return { a: `${name}.lora_A.weight`, b: `${name}.lora_B.weight` };
}

/** A layer that can have an adapter: its name without `.weight`, [out, in]. */
interface LinearLayer {
  name: string;
  out: number;
  inner: number;
}

function linearLayers(config: ModelConfig): LinearLayer[] {
  return config.blocks.flatMap((block, layer) =>
    blockWeights(config, block)
      .filter(({ shape }) => shape.length === 2)
      .map(({ name, shape }) => ({
        name: layerPrefix(layer) + name.replace(/\.weight$/, ""),
        out: shape[0]!,
        inner: shape[1]!,
      })),
  );
}

const lastPart = (name: string): string => name.slice(name.lastIndexOf(".") + 1);

/** @throws EspalierError for a target that the model does not have, and a rank that is no positive whole number */
export function resolveLora(config: ModelConfig, options: LoraOptions = {}): LoraConfig {
  const { rank = 16, alpha = 2 * rank } = options;
  const known = [...new Set(linearLayers(config).map(({ name }) => lastPart(name)))];
  const targets = options.targets ?? known;
  const check = (where: string, good: boolean, expected: string, found: unknown): void => {
    if (!good) throw new EspalierError({ where: `LoRA ${where}`, expected, found: String(found), exitCode: 2 });
  };
  check("rank", Number.isInteger(rank) && rank > 0, "a whole number above 0", rank);
  check("alpha", Number.isFinite(alpha) && alpha > 0, "a number above 0", alpha);
  check("targets", targets.length > 0, "at least one layer", "none");
  for (const target of targets) check("targets", known.includes(target), `some of ${known.join(", ")}`, target);
  return { rank, alpha, targets: known.filter((name) => targets.includes(name)) };
}

function targetLayers(config: ModelConfig, { targets }: LoraConfig): LinearLayer[] {
  return linearLayers(config).filter(({ name }) => targets.includes(lastPart(name)));
}

/** Names and shapes of an adapter's matrices, layer by layer: A [rank, in], then B [out, rank]. */
export function loraWeights(config: ModelConfig, lora: LoraConfig): WeightInfo[] {
  return targetLayers(config, lora).flatMap(({ name, out, inner }) => [
    { name: loraNames(name).a, shape: [lora.rank, inner] },
    { name: loraNames(name).b, shape: [out, lora.rank] },
  ]);
}

/** An adapter at its start, which changes nothing: A uniform within 1 / sqrt(in), B zero. */
export function createLora(config: ModelConfig, lora: LoraConfig, seed: number | string = 0): LoraAdapter {
  const tensors = loraWeights(config, lora).map(({ name, shape }) => {
    const tensor = f32Tensor(shape);
    if (name.endsWith(".lora_A.weight")) fillUniform(tensor, 1 / Math.sqrt(shape[1]!), `lora ${seed} ${name}`);
    return [name, tensor] as const;
  });
  return { ...lora, tensors: Object.fromEntries(tensors) };
}

function fillUniform({ data }: F32Tensor, bound: number, seed: string): void {
  const rng = createRng(seed);
  for (let i = 0; i < data.length; i++) data[i] = bound * (2 * rng.next() - 1);
}

/** The same model as one without adapters: W + (alpha / r) B A. Matrices are added up when they are read. */
export function mergeLora(model: Model, adapter: LoraAdapter): Model {
  checkAdapter(model.config, adapter, "LoRA adapter");
  return { ...model, path: "", weights: mergedWeights(model.weights, adapter), close: async () => {} };
}

function mergedWeights(base: WeightSource, { rank, alpha, tensors }: LoraAdapter): WeightSource {
  const merged = (name: string, from: number, plain: HostTensor): HostTensor => {
    const { a, b } = loraNames(name.replace(/\.weight$/, ""));
    if (!name.endsWith(".weight") || !tensors[a]) return plain;
    const data = Float32Array.from(plain.data as Float32Array);
    addProduct(data, tensors[b]!.data.subarray(from * rank), tensors[a].data, { rank, factor: alpha / rank });
    return f32Tensor(plain.shape, data);
  };
  return {
    ...base,
    read: async (name) => merged(name, 0, await base.read(name)),
    readRows: async (name, from, to) => merged(name, from, await readWeightRows(base, name, from, to)),
  };
}

/** target [rows, in] += factor b [rows, rank] a [rank, in], each sum in f64. */
function addProduct(
  target: Float32Array,
  b: Float32Array,
  a: Float32Array,
  { rank, factor }: { rank: number; factor: number },
): void {
  const width = a.length / rank;
  const sums = new Float64Array(width);
  for (let row = 0; row * width < target.length; row++) {
    sums.fill(0);
    for (let r = 0; r < rank; r++) {
      const slope = factor * b[row * rank + r]!;
      if (slope === 0) continue;
      for (let i = 0; i < width; i++) sums[i]! += slope * a[r * width + i]!;
    }
    for (let i = 0; i < width; i++) target[row * width + i]! += sums[i]!;
  }
}

/** @throws EspalierError that names the first matrix which is missing, has another shape or belongs to no layer */
export function checkAdapter(config: ModelConfig, adapter: LoraAdapter, where: string): void {
  const fix = "an adapter fits only the model that it was trained on";
  const infos = loraWeights(config, adapter);
  for (const { name, shape } of infos) {
    const found = adapter.tensors[name];
    if (found && found.shape.join() === shape.join() && found.data.length === sizeOf(shape)) continue;
    const expected = `${name} of shape [${shape}]`;
    throw new EspalierError({ where, expected, found: found ? `[${found.shape}]` : "none", fix });
  }
  const known = new Set(infos.map(({ name }) => name));
  const stranger = Object.keys(adapter.tensors).find((name) => !known.has(name));
  if (stranger) throw new EspalierError({ where, expected: "matrices of the model's layers", found: stranger, fix });
}

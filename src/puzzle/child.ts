/**
 * @module A realised child as a model: the layers that `realise` or a distillation wrote, over the parent's embedding,
 * norm and head. Weights stay in their files until they are asked for.
 */
import { join } from "node:path";
import { checkSchema, EspalierError, internal, readJson, z } from "../base/index.js";
import { openSafetensorsFile, type TensorFile } from "../formats/index.js";
import {
  type BlockConfig,
  isUniform,
  type Model,
  type ModelConfig,
  modelWeights,
  readWeightRows,
  type WeightSource,
} from "../models/index.js";
import { f32Tensor, type Shape, sameShape } from "../tensor/index.js";
import { layerName } from "./tensor-files.js";

const linearOrNone = z.strictObject({ kind: z.enum(["linear", "none"]) });

const childSchema = z.strictObject({
  blocks: z.array(
    z.strictObject({
      attention: z.union([z.strictObject({ kind: z.literal("gqa"), kvHeads: z.int().min(1) }), linearOrNone]),
      ffn: z.union([z.strictObject({ kind: z.literal("swiglu"), width: z.int().min(1) }), linearOrNone]),
    }),
  ),
});

export const childFile = "child.json";

/** `layer-003.safetensors` of a child's directory: all weights of one layer, by short name. */
export function childLayerPath(directory: string, layer: number): string {
  return join(directory, `${layerName(layer)}.safetensors`);
}

/** The configuration of a parent with other blocks. */
export function childConfig(parent: ModelConfig, blocks: readonly BlockConfig[]): ModelConfig {
  if (blocks.length !== parent.blocks.length) internal(`${blocks.length} blocks over ${parent.blocks.length} layers`);
  const config: ModelConfig = { ...parent, blocks: [...blocks] };
  return { ...config, family: isUniform(config) ? "llama" : "deci" };
}

/** Opens the child in `directory`. Closing it leaves the parent open. */
export async function openChild(parent: Model, directory: string): Promise<Model> {
  const path = join(directory, childFile);
  const { blocks } = checkSchema(childSchema, await readJson(path), path);
  const config = childConfig(parent.config, blocks);
  const layers: TensorFile[] = [];
  const close = async () => {
    for (const file of layers) await file.close();
  };
  try {
    for (const layer of blocks.keys()) layers.push(await openSafetensorsFile(childLayerPath(directory, layer)));
    return { ...parent, path: directory, config, weights: childWeights(parent.weights, config, layers, path), close };
  } catch (error) {
    await close();
    throw error;
  }
}

function childWeights(
  parent: WeightSource,
  config: ModelConfig,
  layers: readonly TensorFile[],
  where: string,
): WeightSource {
  const shapes = new Map(modelWeights(config).map(({ name, shape }) => [name, shape]));
  const ownFile = (name: string): { file: TensorFile; short: string } | undefined => {
    const [, layer, short] = /^model\.layers\.(\d+)\.(.*)$/.exec(name) ?? [];
    return short === undefined ? undefined : { file: layers[Number(layer)]!, short };
  };
  for (const [name, shape] of shapes) {
    const own = ownFile(name);
    checkShape(`${where}: ${name}`, shape, own ? own.file.info(own.short)?.shape : parent.shapeOf(name));
  }
  return {
    has: (name) => shapes.has(name),
    shapeOf: (name) => shapes.get(name) ?? internal(`the child has no weight ${name}`),
    async read(name) {
      const own = ownFile(name);
      if (!own) return parent.read(name);
      return f32Tensor(shapes.get(name) ?? internal(`the child has no weight ${name}`), await own.file.read(own.short));
    },
    async readRows(name, from, to) {
      const own = ownFile(name);
      if (!own) return readWeightRows(parent, name, from, to);
      const [, ...row] = shapes.get(name) ?? internal(`the child has no weight ${name}`);
      return f32Tensor([to - from, ...row], await own.file.readRows(own.short, from, to));
    },
  };
}

function checkShape(where: string, expected: Shape, found: Shape | undefined): void {
  if (found && sameShape(found, expected)) return;
  throw new EspalierError({
    where,
    expected: `[${expected}]`,
    found: found ? `[${found}]` : "none",
    fix: "remove the store's artifacts of this child and run again",
  });
}

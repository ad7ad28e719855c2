/**
 * @module The block library on disk: for each layer and each half of a block, the weights of every variant but the
 * parent's own. One safetensors file per (layer, variant), and one index per layer, written last.
 */
import { join } from "node:path";
import { checkSchema, EspalierError, fileExists, readJson, writeJsonAtomic, z } from "../base/index.js";
import type { Model } from "../models/index.js";
import { readSubBlock } from "./parts.js";
import { attentionId, ffnId, type Part } from "./space.js";
import { layerName, readTensors, writeTensors } from "./tensor-files.js";
import { type SubBlock, sliceFfn } from "./variants.js";

/** How well one variant was made. Errors are squared, on the calibration text, as shares of the half's own update. */
const entrySchema = z.strictObject({
  part: z.enum(["attention", "ffn"]),
  id: z.string(),
  /** Of the training-free start. */
  startError: z.number().optional(),
  /** After the closed-form refit. */
  refitError: z.number().optional(),
  /** After block distillation, on that text's last batches. */
  distilledError: z.number().optional(),
});

const indexSchema = z.strictObject({
  layer: z.int().min(0),
  /** The parent's feed-forward channels, those most worth keeping first; SwiGLU only. */
  channels: z.array(z.int().min(0)).optional(),
  variants: z.array(entrySchema),
});

/** What a library says of one layer. */
export type LayerIndex = z.output<typeof indexSchema>;

/** One variant in the library and how well it was made. */
export type LibraryEntry = z.output<typeof entrySchema>;

/** Weights of variants by layer, half and name. */
export interface BlockLibrary {
  /**
   * The weights of a variant; the parent's own where the name is the parent's. Empty for `none`. A SwiGLU of a width
   * that was not made is cut from the parent, without a refit of its own.
   */
  weights(layer: number, part: Part, id: string): Promise<SubBlock>;
  index(layer: number): Promise<LayerIndex>;
}

export function openBlockLibrary(directory: string, parent: Model): BlockLibrary {
  return {
    async weights(layer, part, id) {
      if (id === "none") return new Map();
      if (id === parentId(parent, layer, part)) return readSubBlock(parent, layer, part);
      const path = variantPath(directory, layer, part, id);
      if (await fileExists(path)) return readTensors(path);
      const { channels, variants } = await readIndex(directory, layer);
      const width = part === "ffn" ? Number(/^swiglu (\d+) /.exec(id)?.[1]) : Number.NaN;
      if (channels && width <= channels.length) {
        return sliceFfn(await readSubBlock(parent, layer, "ffn"), channels.slice(0, width));
      }
      const known = variants.filter((entry) => entry.part === part).map((entry) => entry.id);
      throw new EspalierError({
        where: `block library ${directory}, layer ${layer}`,
        expected: `${part} one of ${[parentId(parent, layer, part), ...known, "none"].join(", ")}`,
        found: id,
      });
    },
    index: (layer) => readIndex(directory, layer),
  };
}

/** The name of the parent's own half of a block. */
export function parentId({ config }: Model, layer: number, part: Part): string {
  const { attention, ffn } = config.blocks[layer]!;
  return part === "attention" ? attentionId(attention) : ffnId(ffn, ffn);
}

export async function writeVariant(
  directory: string,
  layer: number,
  { part, id }: Pick<LibraryEntry, "part" | "id">,
  weights: SubBlock,
): Promise<void> {
  await writeTensors(variantPath(directory, layer, part, id), weights);
}

/** Says that a layer is complete. */
export async function writeIndex(directory: string, index: LayerIndex): Promise<void> {
  await writeJsonAtomic(indexPath(directory, index.layer), index);
}

export async function hasIndex(directory: string, layer: number): Promise<boolean> {
  return fileExists(indexPath(directory, layer));
}

async function readIndex(directory: string, layer: number): Promise<LayerIndex> {
  const path = indexPath(directory, layer);
  return checkSchema(indexSchema, await readJson(path), path);
}

function indexPath(directory: string, layer: number): string {
  return join(directory, layerName(layer), "index.json");
}

/** `swiglu 88 (51%)` -> `layer-003/ffn-swiglu-88.safetensors` */
function variantPath(directory: string, layer: number, part: Part, id: string): string {
  const name = id.replace(/ \(.*\)$/, "").replaceAll(" ", "-");
  return join(directory, layerName(layer), `${part}-${name}.safetensors`);
}

/** @module Shapes of known models by name: `data/catalogue/models.json`, each with the place that it was read from. */
import { readFileSync } from "node:fs";
import { z } from "../base/index.js";
import type { BlockConfig } from "../models/index.js";
import type { ModelShape } from "./model-shape.js";
import { nearestNames } from "./names.js";
import { shapeFromHub } from "./read-shape.js";

const runOfBlocks = z.tuple([
  /** How many alike. */
  z.number().int().positive(),
  /** Key/value heads, 0 without attention; `linear` where one matrix stands for it. */
  z.union([z.number().int().nonnegative(), z.literal("linear")]),
  /** Width of the feed-forward, 0 without. */
  z.number().int().nonnegative(),
]);

const entrySchema = z.object({
  name: z.string(),
  aliases: z.array(z.string()),
  /** On Hugging Face. */
  repository: z.string(),
  source: z.string(),
  /** The fields of `config.json` that say the shape. */
  config: z.record(z.string(), z.unknown()),
  /** Where blocks differ. */
  blocks: z.array(runOfBlocks).optional(),
  /** Bytes before the first tensor in GGUF files that were published there. */
  header: z.object({ bytes: z.number().int(), repository: z.string() }).optional(),
  /** As published, or worked out where only a rounded count is. */
  parameters: z.number().int(),
});
type Entry = z.output<typeof entrySchema>;

export interface KnownModel {
  name: string;
  repository: string;
  source: string;
  parameters: number;
  /** Bytes of header of published GGUF files, where known. */
  headerBytes?: number;
  shape: ModelShape;
}

let entries: readonly Entry[] | undefined;

function listEntries(): readonly Entry[] {
  const path = new URL("../../data/catalogue/models.json", import.meta.url);
  entries ??= z.array(entrySchema).parse(JSON.parse(readFileSync(path, "utf8")));
  return entries;
}

export function catalogueNames(): string[] {
  return listEntries().map(({ name }) => name);
}

/** Names that were probably meant. */
export function similarNames(name: string): string[] {
  return nearestNames(name, catalogueNames());
}

/** A model by its name, one of its other names or its repository, whatever the case. */
export function findInCatalogue(name: string): KnownModel | undefined {
  const wanted = name.toLowerCase();
  const entry = listEntries().find((known) =>
    [known.name, known.repository, ...known.aliases].some((alias) => alias.toLowerCase() === wanted),
  );
  if (!entry) return undefined;
  const { repository, source, parameters } = entry;
  const header = entry.header && { headerBytes: entry.header.bytes };
  return { name: entry.name, repository, source, parameters, ...header, shape: shapeOfEntry(entry) };
}

/** A model whose blocks differ is read as a plain one first, for all that is not in its blocks. */
function shapeOfEntry({ config: stated, blocks, name }: Entry): ModelShape {
  // No shape depends on it, and not every source states it.
  const config = { rms_norm_eps: 1e-5, ...stated };
  if (!blocks) return shapeFromHub(config, name);
  const plain = { ...config, model_type: "llama", architectures: ["LlamaForCausalLM"], intermediate_size: 1 };
  return { ...shapeFromHub(plain, name), architecture: "deci", blocks: blocks.flatMap(toBlocks) };
}

function toBlocks([count, kvHeads, width]: z.output<typeof runOfBlocks>): BlockConfig[] {
  const block: BlockConfig = {
    attention: kvHeads === "linear" ? { kind: "linear" } : kvHeads > 0 ? { kind: "gqa", kvHeads } : { kind: "none" },
    ffn: width > 0 ? { kind: "swiglu", width } : { kind: "none" },
  };
  return Array.from({ length: count }, () => block);
}

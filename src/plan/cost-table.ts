/**
 * @module Measured seconds of sub-blocks, as `espalier measure --json` prints them and `--costs` reads them: the file's
 * schema, and whether it was measured for the model, the type and the programs at hand.
 */
import { checkSchema, EspalierError, readJson, z } from "../base/index.js";
import type { AttentionConfig, FfnConfig, ModelConfig } from "../models/index.js";
import { type WeightType, weightTypes } from "./sizes.js";

const count = z.int().min(1);

const seconds = z
  .object({ mean: z.number(), low: z.number(), high: z.number(), n: count })
  .describe("Mean with its 95 % interval over n rounds, in seconds.");

const times = {
  prefill: z
    .array(z.object({ tokens: count, seconds }))
    .min(1)
    .describe("Seconds that a prompt of so many tokens takes, evaluated alone."),
  decode: z
    .array(z.object({ batch: count, depth: z.int().min(0), seconds }))
    .min(1)
    .describe("Seconds of one step that gives each of `batch` sequences a token, with `depth` tokens before it."),
};

const attention = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("gqa"), kvHeads: count }),
  z.strictObject({ kind: z.literal("linear") }),
]);

const ffn = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("swiglu"), width: count }),
  z.strictObject({ kind: z.literal("linear") }),
]);

const shape = z.discriminatedUnion("part", [
  z.object({ part: z.literal("attention"), id: z.string(), config: attention, ...times }),
  z.object({ part: z.literal("ffn"), id: z.string(), config: ffn, ...times }),
]);

/** Measured costs of one parent shape in one type. Later versions may add fields. */
export const costTableSchema = z
  .object({
    kind: z.literal("espalier-costs"),
    espalier: z.string().describe("Version of Espalier that measured."),
    machine: z.object({
      processor: z.string(),
      threads: count.describe("Threads of one evaluation."),
      stepThreads: count.optional().describe("Threads of a decoding step, where they are others."),
      memoryBytes: count,
      platform: z.string(),
    }),
    versions: z
      .object({ "llama.cpp": z.string(), "node-llama-cpp": z.string() })
      .describe("Programs that were measured; a GPU server names its own."),
    type: z.enum(weightTypes).describe("Number type of the weights."),
    parent: z
      .object({ hiddenSize: count, heads: count, headDim: count, vocabSize: count })
      .describe("The sizes that every sub-block shares."),
    shapes: z.array(shape).min(1).describe("Sub-blocks; `none` costs nothing and is not listed."),
    filler: z
      .object(times)
      .describe("The feed-forward of zeros that a GGUF file needs after an attention without one."),
    fixed: z.object(times).describe("Embedding, last norm, head and what every evaluation costs besides blocks."),
    anchor: z
      .object({ prefill: z.number().positive(), decode: z.number().positive() })
      .optional()
      .describe("By how much more time blocks took in the parent itself than in files of copies; in all times above."),
  })
  .describe("Costs of sub-blocks, measured.");

export type CostTable = z.output<typeof costTableSchema>;
export type MeasuredTimes = Pick<CostTable["fixed"], "prefill" | "decode">;
export type MeasuredShape = CostTable["shapes"][number];

/** One half of a block. */
export type SubBlock = { part: "attention"; config: AttentionConfig } | { part: "ffn"; config: FfnConfig };

/** `gqa 3`, `swiglu 384`, `linear`, `none`. Equal text means equal shape. */
export function subBlockId({ config }: SubBlock): string {
  if (config.kind === "gqa") return `gqa ${config.kvHeads}`;
  return config.kind === "swiglu" ? `swiglu ${config.width}` : config.kind;
}

/** Reads a file of costs; an error names every problem with its path. */
export async function readCostTable(path: string): Promise<CostTable> {
  return checkCostTable(await readJson(path), path);
}

export function checkCostTable(value: unknown, where: string): CostTable {
  return checkSchema(costTableSchema, value, where);
}

/** JSON Schema of a file of costs, kept as `schemas/costs.schema.json`. */
export function costTableJsonSchema(): Record<string, unknown> {
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "Measured costs of sub-blocks",
    ...z.toJSONSchema(costTableSchema, { target: "draft-2020-12", io: "input" }),
  };
}

/** What a file of costs is about to be used for. */
export interface CostUse {
  config: ModelConfig;
  type: WeightType;
  /** Versions at hand; the file's own must be the same. Leave it out to take costs of any version. */
  versions?: { espalier: string; "llama.cpp": string; "node-llama-cpp": string };
  /** Processor at hand, to say when another one was measured. */
  processor?: string;
  /** The file, for messages. */
  where: string;
}

/** Refuses costs of another type, another parent shape or other versions; returns what is worth saying about the rest. */
export function checkCostUse(table: CostTable, use: CostUse): string[] {
  const { where, type, processor } = use;
  if (table.type !== type) {
    throw wrong(
      where,
      `costs in ${type}`,
      `costs in ${table.type}`,
      `measure again with --type ${type}, or ask for --type ${table.type}`,
    );
  }
  checkParent(table, use);
  checkVersions(table, use);
  const other = processor !== undefined && processor !== table.machine.processor;
  return other ? [`costs of another machine: ${table.machine.processor}, ${table.machine.threads} threads`] : [];
}

function checkParent({ parent }: CostTable, { config, where }: CostUse): void {
  const names = ["hiddenSize", "heads", "headDim", "vocabSize"] as const;
  const different = names.filter((name) => parent[name] !== config[name]);
  if (different.length === 0) return;
  const list = (sizes: Record<(typeof names)[number], number>) =>
    different.map((name) => `${name} ${sizes[name]}`).join(", ");
  throw wrong(
    where,
    `costs of the parent's shape: ${list(config)}`,
    list(parent),
    "measure the parent itself: espalier measure MODEL --json",
  );
}

function checkVersions(table: CostTable, { versions, where }: CostUse): void {
  if (!versions) return;
  const measured = { espalier: table.espalier, ...table.versions };
  const different = (["espalier", "llama.cpp", "node-llama-cpp"] as const).filter(
    (name) => versions[name] !== measured[name],
  );
  if (different.length === 0) return;
  const list = (of: typeof versions) => different.map((name) => `${name} ${of[name]}`).join(", ");
  throw wrong(
    where,
    `costs measured with ${list(versions)}`,
    list(measured),
    "measure again with these versions, or say that another version's costs will do (--any-version)",
  );
}

function wrong(where: string, expected: string, found: string, fix: string): EspalierError {
  return new EspalierError({ where, expected, found, fix, exitCode: 2 });
}

/** @module The catalogue of GPUs and machines with memory of their own: `data/catalogue/gpus.json`, each figure with source and date. */
import { readFileSync } from "node:fs";
import { EspalierError, z } from "../base/index.js";
import { nearestNames } from "./names.js";

/** Where a figure is from. */
const sourceSchema = z.object({
  source: z.string(),
  /** Year and month. */
  date: z.string(),
  /** Not seen again in a public page when it was written down. */
  unverified: z.boolean().optional(),
  /** A third party's page. */
  secondary: z.boolean().optional(),
  /** Computed from another figure. */
  derived: z.boolean().optional(),
});

const positive = z.number().positive();

const gpuSchema = z.object({
  name: z.string(),
  aliases: z.array(z.string()),
  vendor: z.enum(["nvidia", "amd", "intel", "apple", "qualcomm"]),
  kind: z.enum(["consumer", "laptop", "workstation", "datacenter", "integrated", "soc"]),
  year: z.number().optional(),
  /** Of the largest choice. */
  memoryBytes: positive,
  memoryChoices: z.array(positive).optional(),
  /** The processor shares this memory. */
  unified: z.boolean().optional(),
  /** Bytes a second. */
  bandwidth: positive,
  /** Dense operations of matrix products a second, by number type. */
  tensorFlops: z.object({ fp16: positive.optional(), fp8: positive.optional(), int8: positive.optional() }).optional(),
  powerWatts: positive.optional(),
  /** US dollars; `kind` says of what: `msrp`, `street`, `module` of a laptop, `system` for the whole machine. */
  price: z.object({ usd: positive, kind: z.string() }).optional(),
  /** Rent on demand, US dollars an hour; `kind` is `list`, `median` or `midpoint` of what was found. */
  hourly: z.object({ usd: positive, low: positive.optional(), high: positive.optional(), kind: z.string() }).optional(),
  note: z.string().optional(),
  /** Number of the source of each figure. */
  sources: z.record(z.string(), z.number().int().nonnegative()),
});

const fileSchema = z.object({ sources: z.array(sourceSchema), gpus: z.array(gpuSchema) });

export type GpuSource = z.output<typeof sourceSchema>;
export interface Gpu extends Omit<z.output<typeof gpuSchema>, "sources"> {
  /** Source of each figure: `memory`, `bandwidth`, `tensorFlops`, `power`, `price`, `hourly`. */
  sources: Readonly<Record<string, GpuSource>>;
}

let known: readonly Gpu[] | undefined;

/** Every GPU, the smallest memory first. */
export function listGpus(): readonly Gpu[] {
  known ??= readGpus();
  return known;
}

function readGpus(): Gpu[] {
  const path = new URL("../../data/catalogue/gpus.json", import.meta.url);
  const { sources, gpus } = fileSchema.parse(JSON.parse(readFileSync(path, "utf8")));
  return gpus
    .map((gpu) => ({
      ...gpu,
      sources: Object.fromEntries(Object.entries(gpu.sources).map(([field, index]) => [field, sources[index]!])),
    }))
    .sort((a, b) => a.memoryBytes - b.memoryBytes || a.bandwidth - b.bandwidth);
}

/** A GPU by its name or one of its other names, whatever the case and spaces. Throws with suggestions. */
export function findGpu(name: string): Gpu {
  const wanted = plain(name);
  const found = listGpus().find((gpu) => [gpu.name, ...gpu.aliases].some((alias) => plain(alias) === wanted));
  if (found) return found;
  const names = listGpus().map((gpu) => gpu.name);
  throw new EspalierError({
    where: `GPU ${name}`,
    expected: "a name of the catalogue",
    found: "none of that name",
    fix: `did you mean ${nearestNames(name, names).join(", ")}? \`espalier plan MODEL --gpus\` lists all that fit`,
    exitCode: 2,
  });
}

const plain = (name: string) => name.toLowerCase().replace(/[^a-z0-9]/g, "");

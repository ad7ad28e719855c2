import { Command } from "commander";
import { EspalierError, formatBytes } from "../../base/index.js";
import type { GpuFit, LlamaCppUse, PlannedModel, PlannedSize } from "../../plan/index.js";
import { positiveInteger } from "../options.js";
import { type CommandIo, runCommand } from "../output.js";

export function createCommand(): Command {
  return new Command("plan")
    .description(
      "Says how large a model is in every llama.cpp type, what it needs in use, and which GPUs run it. Reads no weights; the model need not exist.",
    )
    .argument(
      "<models...>",
      "directories, .gguf files, config.json files or names of the catalogue; several side by side",
    )
    .option("--type <type>", "llama.cpp file type in use", "Q4_K_M")
    .option("--context <n>", "tokens of a sequence", positiveInteger, 8192)
    .option("--batch <n>", "sequences held at once", positiveInteger, 1)
    .option("--cache <type>", "number type of the kv cache: f16, q8_0, q4_0 and others", "f16")
    .option("--no-flash-attention", "llama.cpp without it: values of every layer are as wide as the widest layer's")
    .option("--gpus", "list every GPU, pair and Mac that runs it")
    .option("--gpu <name>", "what of the model this GPU holds")
    .addHelpText(
      "after",
      `
Examples:
  $ espalier plan llama-3.1-8b --gpus
  $ espalier plan llama-3.1-70b llama-3.3-nemotron-super-49b --type Q4_K_M --context 32768
  $ espalier plan path/to/model --gpu "RTX 4090"`,
    )
    .action((models: string[], options: PlanOptions, command: Command) =>
      runCommand(command, (io) => plan(io, models, options)),
    );
}

interface PlanOptions {
  type: string;
  context: number;
  batch: number;
  cache: string;
  flashAttention: boolean;
  gpus?: boolean;
  gpu?: string;
}

async function plan(io: CommandIo, models: readonly string[], options: PlanOptions): Promise<void> {
  const { openPlanned } = await import("../../plan/index.js");
  const use = await checkUse(options);
  const plans: Planned[] = [];
  for (const model of models) plans.push(await planOne(await openPlanned(model), use, options));
  io.result(plans.length === 1 ? plans[0]!.facts : plans.map(({ facts }) => facts), () =>
    plans.length === 1 ? renderOne(plans[0]!, use, options) : renderSideBySide(plans, use),
  );
}

async function checkUse({ type, context, batch, cache, flashAttention }: PlanOptions) {
  const { cacheTypes, fileTypes } = await import("../../plan/index.js");
  const fileType = fileTypes.find((known) => known.toLowerCase() === type.toLowerCase());
  if (!fileType) throw badOption("--type", `one of ${fileTypes.join(", ")}`, type);
  if (!(cache in cacheTypes)) throw badOption("--cache", `one of ${Object.keys(cacheTypes).join(", ")}`, cache);
  const keys = cache as keyof typeof cacheTypes;
  if (!flashAttention && !["f32", "f16", "bf16"].includes(keys)) {
    throw badOption("--cache", "f16 without flash attention: llama.cpp cannot quantise values then", cache);
  }
  return { type: fileType, context, batch, keys, flashAttention } satisfies LlamaCppUse;
}

function badOption(where: string, expected: string, found: string): EspalierError {
  return new EspalierError({ where, expected, found, exitCode: 2 });
}

type Use = Awaited<ReturnType<typeof checkUse>>;
type Planned = Awaited<ReturnType<typeof planOne>>;

async function planOne(model: PlannedModel, use: Use, { gpus, gpu }: PlanOptions) {
  const { findGpu, fitGpu, kvCacheBytesPerToken, listFits, llamaCppMemory, plannedSizes } = await import(
    "../../plan/index.js"
  );
  const { shape, name, parameters, source } = model;
  const memory = llamaCppMemory(shape, use);
  const asked = gpu === undefined ? [] : [fitGpu(shape, use, findGpu(gpu))];
  const fits = gpus ? listFits(shape, use) : asked;
  const facts = {
    model: name,
    source,
    architecture: shape.architecture,
    parameters,
    layers: shape.blocks.length,
    sizes: plannedSizes(model),
    kvCache: {
      bytesPerToken: kvCacheBytesPerToken(shape, use),
      bytesPerTokenWithoutFlashAttention: kvCacheBytesPerToken(shape, { ...use, flashAttention: false }),
    },
    use: { ...use, imatrix: undefined },
    memory,
    gpus: fits.map((fit) => gpuFacts(fit, use)),
  };
  return { facts, fits, model };
}

function gpuFacts(fit: GpuFit, { type, context }: Use) {
  const { name, count, memoryBytes, fits, gpuLayers } = fit;
  return {
    name,
    count,
    memoryBytes,
    fits,
    gpuLayers,
    type,
    context,
    tokensPerSecond: fit.tokensPerSecond ?? null,
    costPerMillionTokens: fit.costPerMillionTokens ?? null,
    sources: fit.gpu.sources,
  };
}

function renderOne({ facts, fits }: Planned, use: Use, { gpus, gpu }: PlanOptions): string {
  const listed = gpus || gpu !== undefined;
  return [
    `${facts.model}: ${facts.architecture}, ${facts.parameters.toLocaleString("en-US")} parameters, ${facts.layers} layers, from ${facts.source}`,
    "",
    ...(listed ? [] : [...renderSizes(facts.sizes, facts.parameters), ""]),
    ...renderMemory(facts, use),
    ...(listed ? ["", ...renderGpus(fits, facts.layers)] : []),
  ].join("\n");
}

/** Types whose file an importance matrix does not change have one row. */
function renderSizes(sizes: readonly PlannedSize[], parameters: number): string[] {
  const rows = sizes.filter(
    (size, i) => !size.imatrix || sizes[i - 1]?.type !== size.type || sizes[i - 1]?.bytes !== size.bytes,
  );
  const lines = rows.map((size) =>
    [
      size.type.padEnd(8),
      (size.imatrix ? "imatrix" : "").padEnd(8),
      size.bytes.toLocaleString("en-US").padStart(18),
      `${(size.bytes / 2 ** 30).toFixed(2)} GiB`.padStart(12),
      ((8 * size.tensorBytes) / parameters).toFixed(2).padStart(7),
    ].join(" "),
  );
  const [first] = sizes;
  const header = first!.headerExact ? "exact" : `tensors exact, header estimated at ${formatBytes(first!.headerBytes)}`;
  return [
    `type              ${"bytes of the file".padStart(18)} ${"".padStart(12)} ${"bits".padStart(7)}   (${header})`,
    ...lines,
  ];
}

function renderMemory({ memory, kvCache }: Planned["facts"], use: Use): string[] {
  const { gpu, ram } = memory;
  const parts: [string, number][] = [
    ["weights", gpu.weights],
    ["kv cache", gpu.kvCache],
    ["compute", gpu.compute],
  ];
  const bars = parts.map(([name, bytes]) => {
    const bar = "█".repeat(Math.round((40 * bytes) / gpu.total));
    return `  ${name.padEnd(9)} ${formatBytes(bytes).padStart(9)}  ${bar}`;
  });
  const tokens = `${use.batch > 1 ? `${use.batch} x ` : ""}${use.context.toLocaleString("en-US")} tokens`;
  const { bytesPerToken: each, bytesPerTokenWithoutFlashAttention: without } = kvCache;
  const padded = without > each ? ` (${without.toLocaleString("en-US")} without flash attention)` : "";
  return [
    `${use.type} with ${tokens}: ${formatBytes(gpu.total)} on the GPU, and ${formatBytes(ram.total)} beside it for the embedding`,
    ...bars,
    `  the cache takes ${each.toLocaleString("en-US")} bytes a token${padded}; compute is an estimate`,
  ];
}

function renderGpus(fits: readonly GpuFit[], layers: number): string[] {
  if (fits.length === 0) return ["No GPU or pair of the catalogue holds it; take a smaller --type or --context."];
  const rows = fits.map((fit) => {
    const speed = fit.tokensPerSecond;
    const band = speed
      ? `${speed.low.toFixed(0)} to ${speed.bound.toFixed(0)}`
      : `${fit.gpuLayers} of ${layers} layers`;
    const cost = fit.costPerMillionTokens;
    return [
      `${fit.count > 1 ? `${fit.count} x ` : ""}${fit.name}`.padEnd(34),
      formatBytes(fit.memoryBytes).padStart(9),
      (speed ? speed.expected.toFixed(0) : "-").padStart(9),
      band.padStart(16),
      (cost === undefined ? "" : `$${cost.toFixed(2)}`).padStart(9),
    ].join(" ");
  });
  const head = `${"GPU".padEnd(34)} ${"memory".padStart(9)} ${"tokens/s".padStart(9)} ${"band".padStart(16)} ${"1M tokens".padStart(9)}`;
  return [head, ...rows];
}

function renderSideBySide(plans: readonly Planned[], use: Use): string {
  const size = ({ facts }: Planned) => facts.sizes.find(({ type }) => type === use.type)!.bytes;
  const rows: [string, (plan: Planned) => string][] = [
    ["parameters", ({ facts }) => facts.parameters.toLocaleString("en-US")],
    ["layers", ({ facts }) => String(facts.layers)],
    [`file, ${use.type}`, (plan) => formatBytes(size(plan))],
    ["kv bytes a token", ({ facts }) => facts.kvCache.bytesPerToken.toLocaleString("en-US")],
    [`on the GPU`, ({ facts }) => formatBytes(facts.memory.gpu.total)],
  ];
  const widths = plans.map(({ facts }) => Math.max(16, facts.model.length));
  const line = (name: string, cells: readonly string[]) =>
    `${name.padEnd(18)} ${cells.map((cell, i) => cell.padStart(widths[i]!)).join("  ")}`;
  return [
    line(
      "",
      plans.map(({ facts }) => facts.model),
    ),
    ...rows.map(([name, of]) => line(name, plans.map(of))),
  ].join("\n");
}

import { Command } from "commander";
import { EspalierError } from "../../base/index.js";
import type { MeasuredMachine } from "../../pipeline/index.js";
import type { GpuFit, LlamaCppUse, PlannedModel, ServerUse, TrainingUse } from "../../plan/index.js";
import { nonNegativeNumber, positiveInteger } from "../options.js";
import { type CommandIo, runCommand } from "../output.js";
import { renderPlan, renderPlans } from "../plan-shown.js";

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
    .option("--batch <n>", "sequences held at once: 1 in use, 4 of a training step", positiveInteger)
    .option("--cache <type>", "number type of the kv cache: f16, q8_0, q4_0 and others", "f16")
    .option("--no-flash-attention", "llama.cpp without it: values of every layer are as wide as the widest layer's")
    .option("--gpus", "list every GPU, pair and Mac that runs it")
    .option("--gpu <name>", "what of the model this GPU holds")
    .option("--this-machine", "whether it fits here, and how fast: measured on this processor in half a minute")
    .option("--find-best", "for each file type the fastest GPU, pair or Mac at the price of --max-price")
    .option("--max-price <usd>", "what the GPU or machine may cost", nonNegativeNumber, 2000)
    .option("--server <gpu>", "tokens a second of a server of these GPUs, with the best tensor parallelism")
    .option("--server-type <type>", "weights on the server: bf16, fp8 or int4", "fp8")
    .option("--input <n>", "tokens of a prompt on the server", positiveInteger, 128)
    .option("--output <n>", "tokens generated after it", positiveInteger, 1024)
    .option("--training", "memory and disk of training by method, part by part")
    .option("--length <n>", "tokens of a sequence of a training step", positiveInteger, 256)
    .option("--rank <n>", "of LoRA's matrices", positiveInteger, 16)
    .option("--share <x>", "of the parent's parameters that a distilled child keeps", nonNegativeNumber, 0.8)
    .option("--page", "the table of a model page by bits (its rule is fitted), beside what the shapes say")
    .addHelpText(
      "after",
      `
Examples:
  $ espalier plan llama-3.1-8b --gpus
  $ espalier plan llama-3.1-70b llama-3.3-nemotron-super-49b --type Q4_K_M --context 32768
  $ espalier plan path/to/model --gpu "RTX 4090"
  $ espalier plan path/to/model --training --batch 2 --length 512
  $ espalier plan llama-3.2-1b --this-machine --type Q4_K_M
  $ espalier plan llama-3.1-nemotron-51b llama-3.1-70b --server "H100 SXM" --input 128 --output 1024
  $ espalier plan llama-3.1-70b --find-best --max-price 4000
  $ espalier plan nemotron-4-340b --page`,
    )
    .action((models: string[], options: PlanOptions, command: Command) =>
      runCommand(command, (io) => plan(io, models, options)),
    );
}

interface PlanOptions {
  type: string;
  context: number;
  batch?: number;
  training?: boolean;
  length: number;
  rank: number;
  share: number;
  cache: string;
  flashAttention: boolean;
  gpus?: boolean;
  gpu?: string;
  thisMachine?: boolean;
  findBest?: boolean;
  maxPrice: number;
  server?: string;
  serverType: string;
  input: number;
  output: number;
  page?: boolean;
}

async function plan(io: CommandIo, models: readonly string[], options: PlanOptions): Promise<void> {
  const { openPlanned } = await import("../../plan/index.js");
  const use = await checkUse(options);
  const trainingUse = checkTraining(options);
  const server = options.server === undefined ? undefined : await checkServer(options);
  const machine = options.thisMachine ? await measureHere(io, use) : undefined;
  const plans: Planned[] = [];
  for (const model of models)
    plans.push(await planOne(await openPlanned(model), { use, trainingUse, server, machine, options }));
  const [only] = plans;
  const alone = plans.length === 1;
  io.result(alone ? only!.facts : plans.map(({ facts }) => facts), () =>
    alone ? renderPlan(only!) : renderPlans(plans),
  );
}

async function measureHere(io: CommandIo, { type }: Use): Promise<MeasuredMachine> {
  const { measureThisMachine } = await import("../../pipeline/index.js");
  const { defaultThreads } = await import("../../runtime/index.js");
  io.onEvent({ event: "stage-start", stage: "machine", title: "three layers of random weights timed in llama.cpp" });
  return measureThisMachine(type, { threads: io.threads ?? defaultThreads(), signal: io.signal });
}

async function checkUse({ type, context, batch = 1, cache, flashAttention }: PlanOptions) {
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

function checkTraining({ batch = 4, length, rank, share }: PlanOptions): Required<TrainingUse> {
  if (share <= 0 || share > 1) throw badOption("--share", "above 0, at most 1", String(share));
  return { batch, length, rank, share };
}

function badOption(where: string, expected: string, found: string): EspalierError {
  return new EspalierError({ where, expected, found, exitCode: 2 });
}

async function checkServer({ serverType, input, output }: PlanOptions): Promise<ServerUse> {
  const { serverTypes } = await import("../../plan/index.js");
  if (!(serverType in serverTypes)) {
    throw badOption("--server-type", `one of ${Object.keys(serverTypes).join(", ")}`, serverType);
  }
  return { type: serverType as keyof typeof serverTypes, input, output };
}

type Use = Awaited<ReturnType<typeof checkUse>>;
export type Planned = Awaited<ReturnType<typeof planOne>>;

interface Asked {
  use: Use;
  trainingUse: Required<TrainingUse>;
  server: ServerUse | undefined;
  machine: MeasuredMachine | undefined;
  options: PlanOptions;
}

async function planOne(model: PlannedModel, { use, trainingUse, server, machine, options }: Asked) {
  const {
    findBest,
    findGpu,
    fitGpu,
    kvCacheBytesPerToken,
    listFits,
    llamaCppMemory,
    modelPage,
    plannedSizes,
    qualityOf,
    safetensorsBytes,
    safetensorsTypes,
  } = await import("../../plan/index.js");
  const { planTraining } = await import("../../pipeline/index.js");
  const { gpus, gpu, page, maxPrice } = options;
  const { shape, name, parameters, source } = model;
  const memory = llamaCppMemory(shape, use);
  const asked = gpu === undefined ? [] : [fitGpu(shape, use, findGpu(gpu))];
  const fits = gpus ? listFits(shape, use) : asked;
  const best = options.findBest ? findBest(shape, use, maxPrice) : [];
  const facts = {
    model: name,
    source,
    architecture: shape.architecture,
    parameters,
    layers: shape.blocks.length,
    sizes: plannedSizes(model),
    safetensors: safetensorsTypes.map((type) => ({ type, tensorBytes: safetensorsBytes(shape, type) })),
    kvCache: {
      bytesPerToken: kvCacheBytesPerToken(shape, use),
      bytesPerTokenWithoutFlashAttention: kvCacheBytesPerToken(shape, { ...use, flashAttention: false }),
    },
    use,
    memory,
    trainingUse,
    training: planTraining(shape, trainingUse),
    quality: qualityOf(name),
    gpus: fits.map((fit) => gpuFacts(fit, use)),
    ...(options.findBest && {
      best: best.map((fit) => ({ ...gpuFacts(fit, { ...use, type: fit.type }), priceUsd: fit.priceUsd })),
    }),
    ...(machine && { thisMachine: await machineFacts(model, use, machine) }),
    ...(server && { server: await serverFacts(model, server, options.server!) }),
    ...(page && { page: modelPage(shape) }),
  };
  return { facts, fits, listed: gpus === true || gpu !== undefined, training: options.training === true };
}

/** Rent of a month, every hour of it. */
const hoursOfMonth = 730;

/** How a server's checkpoint is stored. */
const checkpointTypes = { bf16: "BF16", fp8: "FP8", int4: "AWQ" } as const;

async function serverFacts({ shape }: PlannedModel, use: ServerUse, name: string) {
  const { bestServerSpeed, dividesHeads, findGpu, parallelShare } = await import("../../plan/index.js");
  const gpu = findGpu(name);
  const speed = bestServerSpeed(shape, use, gpu);
  const monthly = speed && gpu.hourly && speed.tensorParallel * gpu.hourly.usd * hoursOfMonth;
  const cost = speed && gpu.hourly && gpu.hourly.usd / (speed.tokensPerSecondPerGpu * 3600e-6);
  return {
    gpu: gpu.name,
    ...use,
    ...(speed ?? { tensorParallel: null, batch: null, tokensPerSecondPerGpu: null, weightBytesPerGpu: null }),
    parallel: [1, 2, 4, 8].map((gpus) => parallelShare(shape, checkpointTypes[use.type], gpus)),
    headsDoNotDivideBy: [2, 4, 8].filter((count) => !dividesHeads(shape, count)),
    costPerMonth: monthly ?? null,
    costPerMillionTokens: cost ?? null,
  };
}

async function machineFacts({ shape }: PlannedModel, use: Use, machine: MeasuredMachine) {
  const { fitMachine } = await import("../../pipeline/index.js");
  return { ...machine, ...fitMachine(shape, use, machine), measuredType: machine.type, type: use.type };
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

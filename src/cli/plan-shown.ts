/** @module What `espalier plan` prints for people. */
import { formatBytes } from "../base/index.js";
import type { GpuFit, PageRow, PlannedSize } from "../plan/index.js";
import type { Planned } from "./commands/plan.js";

export function renderPlan({ facts, fits, listed, training }: Planned): string {
  const { page, server, best, thisMachine } = facts;
  const bare = !listed && !page && !server && !best && !thisMachine && !training;
  return [
    `${facts.model}: ${facts.architecture}, ${facts.parameters.toLocaleString("en-US")} parameters, ${facts.layers} layers, from ${facts.source}`,
    "",
    ...(bare ? [...renderSizes(facts.sizes, facts.parameters), renderSafetensors(facts.safetensors), ""] : []),
    ...renderAsked(facts, training),
    ...(bare ? ["", ...renderTotals(facts)] : []),
    ...(thisMachine ? ["", ...renderMachine(thisMachine)] : []),
    ...(listed ? ["", ...renderGpus(fits, facts.layers)] : []),
  ].join("\n");
}

function renderAsked(facts: Planned["facts"], training: boolean): string[] {
  const { page, server, best } = facts;
  if (page) return renderPage(page);
  if (server) return renderServer(server);
  if (best) return renderBest(best);
  return training ? renderTraining(facts) : renderMemory(facts);
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

function renderSafetensors(sizes: Planned["facts"]["safetensors"]): string {
  const each = sizes.map(({ type, tensorBytes }) => `${type} ${formatBytes(tensorBytes)}`);
  return `safetensors, as servers load them: ${each.join(", ")}`;
}

function renderMemory({ memory, kvCache, use, sizes }: Planned["facts"]): string[] {
  const { gpu, ram } = memory;
  const file = sizes.find(({ type }) => type === use.type)!;
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
    `${use.type} with ${tokens}: ${formatBytes(gpu.total)} on the GPU, ${formatBytes(ram.total)} beside it for the embedding, ${formatBytes(file.bytes)} on disk`,
    ...bars,
    `  the cache takes ${each.toLocaleString("en-US")} bytes a token${padded}; compute is an estimate`,
  ];
}

/** Totals by method, both precisions in one row. */
function renderTotals({ training, trainingUse: { batch, length } }: Planned["facts"]): string[] {
  const gpu = (method: string) => training.find((own) => own.method === method && own.precision === "mixed");
  const rows = training
    .filter(({ precision }) => precision === "f32")
    .map(({ method, totalBytes, diskBytes }) => {
      const mixed = gpu(method);
      return columns(method, [totalBytes, mixed?.totalBytes, diskBytes]);
    });
  return [
    `training with ${batch} x ${length} tokens  memory, f32  GPU, bf16        disk   (--training has the parts)`,
    ...rows,
  ];
}

const columns = (name: string, bytes: readonly (number | undefined)[]): string =>
  `  ${name.padEnd(28)}${bytes.map((one) => (one === undefined ? "-" : formatBytes(one)).padStart(11)).join(" ")}`;

function renderTraining({ training, trainingUse, architecture }: Planned["facts"]): string[] {
  const { batch, length, rank, share } = trainingUse;
  const table = (precision: string) => {
    const own = training.filter((one) => one.precision === precision);
    const heads = ["weights", "gradients", "moments", "insides", "logits", "one block", "kv cache", "total", "disk"];
    const rows = own.map((one) =>
      columns(one.method === "reshape" ? `reshape, in ${one.stage}` : one.method, [
        one.weightsBytes,
        one.gradientBytes,
        one.optimiserBytes,
        one.activationBytes,
        one.logitsBytes,
        one.sweepBytes,
        one.kvCacheBytes,
        one.totalBytes,
        one.diskBytes,
      ]),
    );
    return [`  ${"".padEnd(28)}${heads.map((head) => head.padStart(11)).join(" ")}`, ...rows];
  };
  const known = architecture === "llama" || architecture === "deci";
  return [
    `${batch} x ${length} tokens, LoRA of rank ${rank}, children of ${Math.round(100 * share)} %`,
    known
      ? "main memory, f32, as espalier trains:"
      : `f32 in main memory (arithmetic: ${architecture} is not trained here):`,
    ...table("f32"),
    "a GPU, bf16 with f32 copies for AdamW, attention without stored scores (arithmetic, not measured):",
    ...table("mixed"),
  ];
}

function renderMachine(machine: NonNullable<Planned["facts"]["thisMachine"]>): string[] {
  const { processor, threads, neededBytes, memoryBytes, freeBytes, fits, fitsNow, type, measuredType } = machine;
  const { low, expected, bound } = machine.tokensPerSecond;
  const room = fits ? (fitsNow ? "fits" : "fits, once other programs give memory back") : "does not fit";
  const stoodFor = measuredType === type ? "" : `, from ${measuredType} by what types keep of a GPU's bandwidth`;
  return [
    `this machine: ${processor}, ${threads} threads, ${formatBytes(memoryBytes)} of memory, ${formatBytes(freeBytes)} free`,
    `  ${type} on the processor needs ${formatBytes(neededBytes)}: ${room}`,
    `  ${expected.toFixed(1)} tokens/s with a full context (${low.toFixed(1)} to ${bound.toFixed(1)}), prompts ${machine.promptTokensPerSecond.toFixed(0)} tokens/s${stoodFor}`,
    `  measured in ${machine.seconds.toFixed(0)} s: weights are read at ${(machine.bandwidth.mean / 1e9).toFixed(1)} GB/s, prompts run at ${(machine.promptFlops / 1e9).toFixed(0)} GFLOP/s`,
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

function renderBest(best: NonNullable<Planned["facts"]["best"]>): string[] {
  if (best.length === 0)
    return ["Nothing of the catalogue at that price holds it; raise --max-price or take a smaller --context."];
  const rows = best.map(({ type, name, count, tokensPerSecond, priceUsd }) =>
    [
      type.padEnd(8),
      `${count > 1 ? `${count} x ` : ""}${name}`.padEnd(34),
      `$${priceUsd}`.padStart(7),
      tokensPerSecond!.expected.toFixed(0).padStart(9),
    ].join(" "),
  );
  return [
    `${"type".padEnd(8)} ${"fastest that holds it".padEnd(34)} ${"price".padStart(7)} ${"tokens/s".padStart(9)}`,
    ...rows,
  ];
}

/** Several models as columns. */
export function renderPlans(plans: readonly Planned[]): string {
  const { use } = plans[0]!.facts;
  const size = ({ facts }: Planned) => facts.sizes.find(({ type }) => type === use.type)!.bytes;
  const quality = qualityRows(plans);
  const rows: [string, (plan: Planned) => string][] = [
    ["parameters", ({ facts }) => facts.parameters.toLocaleString("en-US")],
    ["layers", ({ facts }) => String(facts.layers)],
    [`file, ${use.type}`, (plan) => formatBytes(size(plan))],
    ["kv bytes a token", ({ facts }) => facts.kvCache.bytesPerToken.toLocaleString("en-US")],
    ["on the GPU", ({ facts }) => formatBytes(facts.memory.gpu.total)],
    ...serverRows(plans),
    ...quality.rows,
  ];
  const table = [["", ...plans.map(({ facts }) => facts.model)], ...rows.map(([name, of]) => [name, ...plans.map(of)])];
  const widths = table[0]!.map((_, column) => Math.max(...table.map((line) => line[column]!.length)));
  const lines = table.map((line) =>
    line.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  "),
  );
  return [...lines, ...(quality.sources.length > 0 ? ["", ...quality.sources] : [])].join("\n");
}

/** Published figures, each with the number of its source; a model without one has a dash. */
function qualityRows(plans: readonly Planned[]): { rows: [string, (plan: Planned) => string][]; sources: string[] } {
  const figures = plans.flatMap(({ facts }) => facts.quality);
  const benchmarks = [...new Set(figures.map(({ benchmark }) => benchmark))].filter(
    (name) => plans.filter(({ facts }) => facts.quality.some(({ benchmark }) => benchmark === name)).length > 1,
  );
  const shown = figures.filter(({ benchmark }) => benchmarks.includes(benchmark));
  const sources = [...new Set(shown.map(({ source }) => source))];
  const rows = benchmarks.map((name): [string, (plan: Planned) => string] => [
    name,
    ({ facts }) =>
      facts.quality
        .filter(({ benchmark }) => benchmark === name)
        .map(({ value, source }) => `${value} [${sources.indexOf(source) + 1}]`)
        .join(", ") || "-",
  ]);
  return { rows, sources: sources.map((source, i) => `[${i + 1}] ${source}`) };
}

type ServerFacts = NonNullable<Planned["facts"]["server"]>;

function serverRows(plans: readonly Planned[]): [string, (plan: Planned) => string][] {
  const server = plans[0]!.facts.server;
  if (!server) return [];
  const of = (show: (server: ServerFacts) => string) => (plan: Planned) => {
    const { server: own } = plan.facts;
    return own && own.tensorParallel !== null ? show(own) : "does not fit";
  };
  return [
    [`${server.gpu}, ${server.type}`, of(({ tensorParallel, batch }) => `TP ${tensorParallel}, batch ${batch}`)],
    [`tokens/s a GPU`, of((own) => own.tokensPerSecondPerGpu!.toFixed(0))],
    [`$ a month`, of((own) => own.costPerMonth?.toFixed(0) ?? "no rent known")],
    [`$ 1M tokens`, of((own) => own.costPerMillionTokens?.toFixed(2) ?? "no rent known")],
  ];
}

function renderServer(server: ServerFacts): string[] {
  const { gpu, type, input, output, tensorParallel, batch, headsDoNotDivideBy } = server;
  const use = `${type} on ${gpu}, ${input} tokens in and ${output} out`;
  const heads = headsDoNotDivideBy.length > 0 ? [`  heads do not divide by ${headsDoNotDivideBy.join(", ")}`] : [];
  if (tensorParallel === null) {
    return [`${use}: does not fit on eight`, ...heads, ...server.parallel.map(renderShare)];
  }
  const rent = server.costPerMonth === null ? "no rent known" : `$${server.costPerMonth.toFixed(0)} a month`;
  const price =
    server.costPerMillionTokens === null ? "" : `, $${server.costPerMillionTokens.toFixed(2)} a million tokens`;
  return [
    `${use}: ${server.tokensPerSecondPerGpu!.toFixed(0)} tokens/s a GPU`,
    `  tensor parallelism ${tensorParallel}, ${batch} sequences at once, ${rent}${price}`,
    ...heads,
    ...server.parallel.map(renderShare),
    "  fitted to twelve published figures of one card (docs/plan.md); elsewhere an estimate",
  ];
}

function renderShare({ gpus, weightBytes, kvBytesPerToken, reason }: ServerFacts["parallel"][number]): string {
  const each = `  ${gpus} GPU${gpus > 1 ? "s" : ""}: ${formatBytes(weightBytes)} of weights each`;
  return reason
    ? `${each}, but ${reason}`
    : `${each}, ${kvBytesPerToken.toLocaleString("en-US")} bytes a token of 16-bit cache`;
}

function renderPage(page: readonly PageRow[]): string[] {
  const gb = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`;
  const rows = page.map((row) =>
    [
      String(row.bits).padStart(4),
      gb(row.pageBytes).padStart(10),
      gb(row.weightBytes).padStart(10),
      gb(row.weightBytes + row.kvCacheBytes).padStart(14),
      `${row.fileType} ${gb(row.fileBytes)}`.padStart(18),
    ].join("  "),
  );
  const { kvCacheBytes } = page[0]!;
  return [
    `${"bits".padStart(4)}  ${"the page".padStart(10)}  ${"weights".padStart(10)}  ${"with kv cache".padStart(14)}  ${"llama.cpp file".padStart(18)}`,
    ...rows,
    "",
    "The page's rule: a round count of parameters times the bits, plus 2.925 GB. The constant is fitted to its four figures; it is no",
    `model of memory: the kv cache of 4,096 tokens alone is ${(kvCacheBytes / 1e9).toFixed(2)} GB, and grows with the context.`,
  ];
}

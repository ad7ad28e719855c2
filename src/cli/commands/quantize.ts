import { rm, stat } from "node:fs/promises";
import { Command, InvalidArgumentError, Option } from "commander";
import { checkFree, createRssMeter, EspalierError, formatBytes } from "../../base/index.js";
import type { LlamaCppTools } from "../../llamacpp/index.js";
import type { FileType, QuantType } from "../../plan/index.js";
import type { Quantised, QuantiseOptions, QuantiseSource, TokenSequences, TypeOverride } from "../../quantise/index.js";
import { collect, positiveInteger } from "../options.js";
import { type CommandIo, runCommand } from "../output.js";

interface QuantizeOptions {
  type?: string;
  memory?: number;
  out: string;
  text?: string[];
  imatrix: string;
  saveImatrix?: string;
  tensor?: TypeOverride[];
  length: number;
  sequences: number;
  compare: boolean;
  dryRun?: boolean;
}

export function createCommand(): Command {
  return new Command("quantize")
    .description(
      "Writes a model as a GGUF file of a llama.cpp type, or of the best types for a size, and measures the loss.",
    )
    .argument("<model>", "Hugging Face directory, .gguf file or hf:owner/name of the cache")
    .option("--type <type>", "a mixture of llama.cpp, such as Q4_K_M, Q8_0 or IQ3_XS")
    .option("--memory <size>", "the best type for each matrix within a file of this size, such as 3GB", byteSize)
    .requiredOption("--out <file>", "the .gguf to write; must not exist yet")
    .option("--text <file>", "text, or .jsonl of conversations; may be repeated (default: bundled stories)", collect)
    .option("--imatrix <how>", "auto, none, or a file of llama-imatrix", "auto")
    .option("--save-imatrix <file>", "also write the importance matrix, for llama.cpp's tools")
    .option("--tensor <pattern=type>", "a type for the tensors whose names match; may be repeated", collectOverride)
    .option("--length <n>", "tokens of a sequence", positiveInteger, 256)
    .option("--sequences <n>", "sequences that are measured", positiveInteger, 16)
    .option("--no-compare", "write without measuring what was lost")
    .addOption(new Option("--dry-run", "only say how large the file will be"))
    .addHelpText(
      "after",
      `
Examples:
  $ espalier quantize models/smollm2 --type Q4_K_M --text notes.txt --out smollm2.Q4_K_M.gguf
  $ espalier quantize smollm2.F16.gguf --memory 90MB --text notes.txt --out smollm2.90MB.gguf`,
    )
    .action((path: string, options: QuantizeOptions, command: Command) =>
      runCommand(command, (io) => quantize(io, path, options)),
    );
}

async function quantize(io: CommandIo, path: string, options: QuantizeOptions): Promise<void> {
  const { cachedPath } = await import("../../hub/index.js");
  const { createLlamaCppTools } = await import("../../llamacpp/index.js");
  const { openSource } = await import("../../quantise/index.js");
  const type = await checkOptions(options);
  if (!options.dryRun) await checkFree(options.out);
  const meter = createRssMeter();
  const source = await openSource(await cachedPath(path), options.out);
  const tools = createLlamaCppTools({ threads: await threadsFor(io, source) });
  try {
    if (options.dryRun) return await foretell(io, source, type!, options);
    const job = { io, source, tools, options };
    const result = await (type ? toType(job, type) : toSize(job));
    for (const message of result.file.notices) io.onEvent({ event: "notice", level: "warning", message });
    io.result({ ...result, peakRssBytes: meter.peakBytes() }, () => render(result, meter.peakBytes()));
  } finally {
    meter.stop();
    await tools.dispose();
    await source.dispose();
  }
}

/** The file type, or undefined with --memory. */
async function checkOptions(options: QuantizeOptions): Promise<FileType | undefined> {
  const { type, memory, dryRun, tensor, imatrix, saveImatrix } = options;
  const { fileTypes, needsImatrix, quantTypes } = await import("../../plan/index.js");
  const unknown = tensor?.find((own) => !quantTypes.includes(own.type));
  if (unknown) throw usage(`--tensor PATTERN=TYPE with a type of ${quantTypes.join(", ")}`, unknown.type);
  if ((type === undefined) === (memory === undefined)) throw usage("--type or --memory", type ? "both" : "neither");
  if (memory !== undefined && dryRun) throw usage("--type with --dry-run", "--memory, whose types have to be measured");
  if (memory !== undefined && tensor) throw usage("--type with --tensor", "--memory, which chooses every type");
  if (saveImatrix && imatrix !== "auto")
    throw usage("--save-imatrix with a matrix that is measured", `--imatrix ${imatrix}`);
  if (type === undefined) return undefined;
  const known = fileTypes.find((name) => name === type.toUpperCase());
  if (known && imatrix === "none" && needsImatrix.includes(known)) {
    throw usage(`an importance matrix for ${known}, which is refused without`, "--imatrix none");
  }
  if (known && tensor && floats.includes(known)) throw usage("--tensor with a type that quantises", known);
  if (known) return known;
  throw usage(`--type of ${fileTypes.join(", ")}`, type);
}

function usage(expected: string, found: string): EspalierError {
  return new EspalierError({ where: "quantize", expected, found, exitCode: 2 });
}

interface Outcome {
  file: Quantised;
  /** With --memory: the largest mixture that fits, on the same sequences. */
  rival?: Quantised;
  /** With --memory: the sum of what every matrix costs alone. */
  predictedKl?: number;
}

interface Job {
  io: CommandIo;
  source: QuantiseSource;
  tools: LlamaCppTools;
  options: QuantizeOptions;
}

async function threadsFor({ threads }: CommandIo, { gguf }: QuantiseSource): Promise<number> {
  const { threadsForBytes } = await import("../../llamacpp/index.js");
  const { defaultThreads } = await import("../../runtime/index.js");
  return threads ?? threadsForBytes((await stat(gguf)).size, defaultThreads());
}

async function toType(job: Job, type: FileType): Promise<Outcome> {
  const { quantiseFile } = await import("../../quantise/index.js");
  const { common } = await prepare(job, profits(type));
  return { file: await quantiseFile(job.source, { ...common, type, overrides: job.options.tensor ?? [] }) };
}

/** Sequences on which every matrix is tried in every type. */
const triedSequences = 2;

async function toSize(job: Job): Promise<Outcome> {
  const { chooseTypes, quantiseFile } = await import("../../quantise/index.js");
  const { source, options } = job;
  const { common, sequences } = await prepare(job, true);
  const tried = sequences!.choosing.slice(0, triedSequences);
  const chosen = await chooseTypes(source, { ...common, bytes: options.memory!, sequences: tried });
  const { overrides, mixture, predictedKl } = chosen;
  const file = await quantiseFile(source, { ...common, type: mixture ?? "Q2_K", overrides });
  if (!mixture || !options.compare) return { file, predictedKl };
  const rivalPath = `${options.out}.rival.gguf`;
  try {
    return { file, predictedKl, rival: await quantiseFile(source, { ...common, type: mixture, out: rivalPath }) };
  } finally {
    await rm(rivalPath, { force: true });
  }
}

/** The quantiser weighs no errors in these. */
const profits = (type: FileType) => type !== "Q8_0" && !floats.includes(type);
const floats: readonly FileType[] = ["F32", "F16", "BF16"];

async function prepare(job: Job, wantsImatrix: boolean) {
  const { io, source, tools, options } = job;
  const measures = options.imatrix === "auto" && (wantsImatrix || options.saveImatrix !== undefined);
  const needsText = measures || options.compare || options.memory !== undefined;
  const sequences = needsText ? await readText(io, source, options) : undefined;
  const importance = measures ? await measureImatrix(job, sequences!) : await namedImatrix(options.imatrix);
  const common: Omit<QuantiseOptions, "type"> = {
    out: options.out,
    tools,
    ...(importance && { importance }),
    ...(options.compare && sequences && { sequences: sequences.measuring }),
    onEvent: io.onEvent,
    signal: io.signal,
  };
  return { common, sequences };
}

async function readText(io: CommandIo, source: QuantiseSource, options: QuantizeOptions): Promise<TokenSequences> {
  const { readSequences } = await import("../../quantise/index.js");
  const { bundledTextPath } = await import("../../data/index.js");
  if (!options.text) {
    const message =
      "weights are weighed and losses measured on the bundled stories; name text of your own kind with --text";
    io.onEvent({ event: "notice", level: "warning", message });
  }
  const { length, sequences: measuring } = options;
  const texts = options.text ?? [bundledTextPath("valid")];
  return readSequences(source.gguf, { texts, length, choosing: 2 * measuring, measuring, signal: io.signal });
}

async function namedImatrix(how: string): Promise<Record<string, Float32Array> | undefined> {
  if (how === "none" || how === "auto") return undefined;
  const { readImatrix } = await import("../../quantise/index.js");
  return readImatrix(how);
}

async function measureImatrix({ io, source, tools, options }: Job, { choosing }: TokenSequences) {
  const { saveImatrix, text = ["bundled stories"], length } = options;
  const importance = await tools.importance(source.gguf, choosing, {
    signal: io.signal,
    onProgress: (done, total) =>
      io.onEvent({ event: "progress", stage: "importance matrix", done, total, unit: "sequences" }),
  });
  if (saveImatrix) {
    const { writeImatrix } = await import("../../quantise/index.js");
    await writeImatrix(saveImatrix, importance, { dataset: text.join(", "), sequence: length });
  }
  return importance.meanSquares;
}

async function foretell(
  io: CommandIo,
  { gguf }: QuantiseSource,
  type: FileType,
  options: QuantizeOptions,
): Promise<void> {
  const { predictBytes } = await import("../../quantise/index.js");
  const imatrix = options.imatrix !== "none" && profits(type);
  const predictedBytes = await predictBytes(gguf, {
    type,
    overrides: options.tensor ?? [],
    ...(imatrix && { importance: {} }),
  });
  if (predictedBytes === undefined) throw usage("an architecture whose rules are known", `that of ${gguf}`);
  io.result(
    { type, imatrix, predictedBytes },
    () => `${type}: ${formatBytes(predictedBytes)} (${predictedBytes} bytes)`,
  );
}

function render({ file, rival, predictedKl }: Outcome, peakRssBytes: number): string {
  const tensors = file.tensors.map(({ type, count, bytes }) => `${type} ${formatBytes(bytes)} (${count})`);
  return [
    `${file.path}: ${formatBytes(file.bytes)}, ${file.bitsPerWeight.toFixed(2)} bits a weight${file.imatrix ? ", importance matrix" : ""}`,
    `  size       ${sizes(file)}`,
    `  tensors    ${tensors.join(", ")}`,
    ...lost(file),
    ...(predictedKl === undefined
      ? []
      : [`  predicted  KL ${predictedKl.toFixed(4)}, the sum over matrices quantised alone`]),
    ...(rival ? [`beside it, ${rival.type} of the same budget:`, `  size       ${sizes(rival)}`, ...lost(rival)] : []),
    `peak memory ${formatBytes(peakRssBytes)}`,
  ].join("\n");
}

function sizes({ bytes, predictedBytes }: Quantised): string {
  if (predictedBytes === undefined)
    return `${bytes} bytes; not predicted, as the rules for this architecture are not known`;
  const difference = bytes - predictedBytes;
  return `${bytes} bytes, predicted ${predictedBytes}${difference === 0 ? ": equal" : ` (${difference} off)`}`;
}

function lost({ compared }: Quantised): string[] {
  if (!compared) return [];
  const { kl, sameTop, perplexity, tokens, sequences } = compared;
  const { source, file, ratio } = perplexity;
  return [
    `  KL         ${kl.mean.toFixed(4)} nats a token, 95 % ${kl.low.toFixed(4)} to ${kl.high.toFixed(4)}`,
    `  perplexity ${file.toFixed(3)}, of the source ${source.toFixed(3)}: ratio ${ratio.mean.toFixed(4)}, 95 % ${ratio.low.toFixed(4)} to ${ratio.high.toFixed(4)}`,
    `  same top   ${(100 * sameTop.mean).toFixed(1)} % of tokens, over ${tokens} tokens in ${sequences} sequences`,
  ];
}

const units: Record<string, number> = { KB: 1e3, MB: 1e6, GB: 1e9, KIB: 2 ** 10, MIB: 2 ** 20, GIB: 2 ** 30 };

function byteSize(text: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?)\s*([KMG]i?B)$/i.exec(text.trim()) ?? [];
  if (number === undefined) throw new InvalidArgumentError(`Expected a size such as 3GB or 900MiB, found "${text}".`);
  return Math.floor(Number(number) * units[unit!.toUpperCase()]!);
}

/** Types are checked with the others, where their names are loaded. */
function collectOverride(text: string, previous: TypeOverride[] = []): TypeOverride[] {
  const at = text.lastIndexOf("=");
  if (at < 1) throw new InvalidArgumentError(`Expected PATTERN=TYPE, such as ffn_down=Q6_K, found "${text}".`);
  const [pattern, type] = [text.slice(0, at), text.slice(at + 1).toUpperCase()];
  try {
    new RegExp(pattern);
  } catch {
    throw new InvalidArgumentError(`Expected a regular expression before "=", found "${pattern}".`);
  }
  return [...previous, { pattern, type: type as QuantType }];
}

/**
 * @module A budget of bytes instead of a type: every matrix is tried alone in several types, and an exact search picks one
 * type each, so that the file fits and the sum of KL is least.
 */
import { EspalierError, formatBytes, mean, type OnEvent } from "../base/index.js";
import type { LlamaCppTools } from "../llamacpp/index.js";
import {
  type FileType,
  fileTypeBytes,
  fileTypes,
  fittingType,
  needsImatrix,
  openPlanned,
  type PlannedModel,
  type QuantType,
  type TypedTensor,
  tensorBytes,
  typedTensors,
} from "../plan/index.js";
import { type Library, search } from "../puzzle/index.js";
import { tensorTypeNumber } from "./quantise.js";
import type { QuantiseSource, TypeOverride } from "./types.js";

/** Tried for every matrix, the largest first; rows that their blocks do not divide get what the quantiser would give them. */
export const ladder: readonly QuantType[] = ["Q8_0", "Q6_K", "Q5_K", "Q4_K", "IQ4_XS", "Q3_K", "Q2_K"];

export interface BudgetOptions {
  /** Bytes of the whole file. */
  bytes: number;
  /** Token ids on which each matrix is tried. */
  sequences: number[][];
  importance?: Readonly<Record<string, Float32Array>>;
  tools: LlamaCppTools;
  onEvent?: OnEvent;
  signal?: AbortSignal;
}

export interface ChosenTypes {
  /** One for each matrix. */
  overrides: TypeOverride[];
  /** Sum of the KL that each matrix costs alone, nats a token. */
  predictedKl: number;
  /** The largest mixture within the budget; undefined where none is small enough. */
  mixture?: FileType;
}

/** @throws EspalierError where the budget is below what the smallest types take */
export async function chooseTypes(source: QuantiseSource, options: BudgetOptions): Promise<ChosenTypes> {
  const { bytes, importance } = options;
  checkUnquantised(source);
  const planned = await openPlanned(source.gguf);
  const tensors = typedTensors(planned.shape, "Q8_0");
  const matrices = tensors.filter(({ role }) => role !== "kept");
  const rest = sum(tensors.filter(({ role }) => role === "kept").map(tensorBytes)) + planned.header.bytes;
  checkBudget(bytes, rest, matrices);
  const library = await measureLibrary(source, matrices, options);
  const found = await search(library, { max: { bytes }, fixed: { bytes: rest } });
  const overrides = matrices.map(({ name }) => ({ pattern: exactly(name), type: found.choice[name] as QuantType }));
  const mixture = largestWithin(planned, bytes, importance !== undefined);
  return { overrides, predictedKl: found.objective!, ...(mixture && { mixture }) };
}

const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
const exactly = (name: string) => `^${name.replaceAll(".", "\\.")}$`;

function typesOf(tensor: TypedTensor): QuantType[] {
  return [...new Set(ladder.map((type) => fittingType(type, tensor)))];
}

/** What each matrix costs in bytes and in KL, by type. */
async function measureLibrary(source: QuantiseSource, matrices: readonly TypedTensor[], options: BudgetOptions) {
  const { sequences, importance, tools, signal, onEvent } = options;
  const tensors = matrices.map((tensor) => ({ name: tensor.name, types: typesOf(tensor).map(tensorTypeNumber) }));
  const divergences = await tools.sensitivity(
    { gguf: source.gguf, sequences, tensors, ...(importance && { importance: { ...importance } }) },
    {
      ...(signal && { signal }),
      onProgress: (done, total) => onEvent?.({ event: "progress", stage: "try types", done, total, unit: "types" }),
    },
  );
  return Object.fromEntries(matrices.map((tensor, i) => [tensor.name, variantsOf(tensor, divergences[i]!)]));
}

function variantsOf(tensor: TypedTensor, divergences: readonly (readonly number[])[]): Library[string] {
  return Object.fromEntries(
    typesOf(tensor).map((type, i) => [
      type,
      { stats: { bytes: tensorBytes({ ...tensor, type }) }, metrics: { kl_div: mean(divergences[i]!) } },
    ]),
  );
}

function largestWithin(planned: PlannedModel, bytes: number, imatrix: boolean): FileType | undefined {
  return fileTypes
    .filter((type) => type !== "F32" && type !== "F16" && type !== "BF16" && (imatrix || !needsImatrix.includes(type)))
    .map((type) => ({ type, size: fileTypeBytes(planned.shape, type, { imatrix }) + planned.header.bytes }))
    .filter(({ size }) => size <= bytes)
    .sort((a, b) => b.size - a.size)[0]?.type;
}

function checkBudget(bytes: number, rest: number, matrices: readonly TypedTensor[]): void {
  const least =
    rest + sum(matrices.map((own) => Math.min(...typesOf(own).map((type) => tensorBytes({ ...own, type })))));
  if (bytes >= least) return;
  throw new EspalierError({
    where: "--memory",
    expected: `at least ${formatBytes(least)} (${least} bytes), which the smallest types of ${ladder.join(", ")} take`,
    found: `${formatBytes(bytes)} (${bytes} bytes)`,
    fix: "allow more, name a smaller type with --type, or make the model smaller (espalier reshape)",
    exitCode: 2,
  });
}

function checkUnquantised({ gguf, types }: QuantiseSource): void {
  const quantised = types.filter((type) => !["F32", "F16", "BF16"].includes(type));
  if (quantised.length === 0) return;
  throw new EspalierError({
    where: gguf,
    expected: "weights in F32, F16 or BF16, to try types on",
    found: quantised.join(", "),
    fix: "write it as F16 first: espalier quantize MODEL --type F16 --out FILE",
    exitCode: 2,
  });
}

/**
 * @module Writes a GGUF file in another type through llama.cpp's own quantiser, says before how large it will be, and
 * measures afterwards what it lost.
 */
import { rename, rm, stat } from "node:fs/promises";
import { checkFree, EspalierError, temporaryName } from "../base/index.js";
import { fileTypeNumbers, openGgufFile, tensorTypes } from "../formats/index.js";
import { openPlanned, type QuantType, tensorBytes, typedTensors } from "../plan/index.js";
import { summarise } from "./compared.js";
import type { Quantised, QuantiseOptions, QuantiseSource, TypeOverride } from "./types.js";

/**
 * Quantises a file. Nothing stands under the final name until the file is whole.
 *
 * @throws EspalierError where the quantiser refuses, with what it says; or where `out` exists
 */
export async function quantiseFile(source: QuantiseSource, options: QuantiseOptions): Promise<Quantised> {
  const { out, tools, sequences = [], signal, onEvent } = options;
  await checkFree(out);
  await checkPatterns(source.gguf, options.overrides ?? []);
  const predictedBytes = await predictBytes(source.gguf, options);
  const temporary = temporaryName(out);
  try {
    const notices = await write(source, temporary, options);
    const [comparisons] =
      sequences.length === 0
        ? []
        : await tools.compare(source.gguf, [temporary], sequences, {
            ...(signal && { signal }),
            onProgress: (done, total) =>
              onEvent?.({ event: "progress", stage: "compare", done, total, unit: "sequences" }),
          });
    await rename(temporary, out);
    return {
      path: out,
      type: options.type,
      ...(predictedBytes !== undefined && { predictedBytes }),
      ...(await describeFile(out)),
      imatrix: options.importance !== undefined,
      ...(comparisons && { compared: summarise(comparisons) }),
      notices: [...requantised(source), ...notices],
    };
  } finally {
    await rm(temporary, { force: true });
  }
}

function write({ gguf }: QuantiseSource, target: string, options: QuantiseOptions) {
  const { type, overrides = [], importance, tools, signal, onEvent } = options;
  return tools.quantise(
    {
      source: gguf,
      target,
      fileType: fileTypeNumbers[type],
      overrides: overrides.map(({ pattern, type }) => [pattern, tensorTypeNumber(type)]),
      ...(importance && { importance: { ...importance } }),
    },
    {
      ...(signal && { signal }),
      onProgress: (done, total) => onEvent?.({ event: "progress", stage: "quantise", done, total, unit: "tensors" }),
    },
  );
}

export function tensorTypeNumber(name: QuantType): number {
  const [number] = Object.entries(tensorTypes).find(([, type]) => type.name === name)!;
  return Number(number);
}

/** Bytes of the file to come, or undefined for an architecture whose rules are not known. */
export async function predictBytes(
  gguf: string,
  { type, overrides = [], importance }: Pick<QuantiseOptions, "type" | "overrides" | "importance">,
): Promise<number | undefined> {
  const planned = await openPlanned(gguf).catch((error) => {
    if (error instanceof EspalierError) return undefined;
    throw error;
  });
  if (!planned) return undefined;
  const tensors = typedTensors(planned.shape, type, {
    imatrix: importance !== undefined,
    override: overrideOf(overrides),
  });
  return tensors.reduce((sum, tensor) => sum + tensorBytes(tensor), planned.header.bytes);
}

/** The first pattern that matches decides, as in the quantiser. */
export function overrideOf(overrides: readonly TypeOverride[]): (tensor: string) => QuantType | undefined {
  const rules = overrides.map(({ pattern, type }) => ({ matcher: new RegExp(pattern), type }));
  return (tensor) => rules.find(({ matcher }) => matcher.test(tensor))?.type;
}

async function describeFile(path: string): Promise<Pick<Quantised, "bytes" | "bitsPerWeight" | "tensors">> {
  const { size } = await stat(path);
  const file = await openGgufFile(path);
  try {
    const types = new Map<string, { count: number; bytes: number }>();
    let weights = 0;
    for (const name of file.names) {
      const { type, shape, byteLength } = file.info(name)!;
      const known = types.get(type) ?? { count: 0, bytes: 0 };
      types.set(type, { count: known.count + 1, bytes: known.bytes + byteLength });
      weights += shape.reduce((a, b) => a * b, 1);
    }
    const tensors = [...types].map(([type, own]) => ({ type, ...own })).sort((a, b) => b.bytes - a.bytes);
    const bytes = tensors.reduce((sum, own) => sum + own.bytes, 0);
    return { bytes: size, bitsPerWeight: (8 * bytes) / weights, tensors };
  } finally {
    await file.close();
  }
}

const unquantised = ["F32", "F16", "BF16"];

function requantised({ gguf, types }: QuantiseSource): string[] {
  const [type] = types;
  if (type === undefined || unquantised.includes(type)) return [];
  return [`${gguf} is ${type} already: what that lost is lost, and the comparison is with it`];
}

/** A pattern that no tensor's name matches would change nothing, and say nothing. */
async function checkPatterns(gguf: string, overrides: readonly TypeOverride[]): Promise<void> {
  const file = await openGgufFile(gguf);
  await file.close();
  const idle = overrides.find(({ pattern }) => !file.names.some((name) => new RegExp(pattern).test(name)));
  if (!idle) return;
  throw new EspalierError({
    where: `--tensor ${idle.pattern}=${idle.type}`,
    expected: `a pattern that matches names of tensors, such as ${file.names.at(-1)}`,
    found: "none that does",
    exitCode: 2,
  });
}

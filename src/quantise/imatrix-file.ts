/**
 * @module Importance matrices as files, in llama.cpp's own format: a GGUF of type `imatrix` with, for each matrix, the sums of
 * the squares of its inputs (`NAME.in_sum2`) and how many there were (`NAME.counts`).
 */
import { EspalierError } from "../base/index.js";
import { type GgufEntries, openGgufFile, writeGgufFile } from "../formats/index.js";
import type { Importance } from "../llamacpp/index.js";

const sums = ".in_sum2";
const counts = ".counts";

export async function writeImatrix(
  path: string,
  { tokens, meanSquares }: Importance,
  { dataset, sequence }: { dataset: string; sequence: number },
): Promise<void> {
  const entries: GgufEntries = [
    ["general.type", { type: "string", value: "imatrix" }],
    ["imatrix.datasets", { type: "array", of: "string", value: [dataset] }],
    ["imatrix.chunk_count", { type: "u32", value: Math.floor(tokens / sequence) }],
    ["imatrix.chunk_size", { type: "u32", value: sequence }],
  ];
  const tensors = Object.entries(meanSquares).flatMap(([name, own]) => [
    plan(name + sums, [1, own.length], async () => own.map((mean) => mean * tokens)),
    plan(name + counts, [1, 1], async () => Float32Array.of(tokens)),
  ]);
  await writeGgufFile(path, entries, tensors);
}

function plan(name: string, shape: number[], read: () => Promise<Float32Array>) {
  return { name, shape, type: "f32" as const, read };
}

/** Mean squares by tensor. */
export async function readImatrix(path: string): Promise<Record<string, Float32Array>> {
  const file = await openGgufFile(path);
  try {
    const names = file.names.filter((name) => name.endsWith(sums)).map((name) => name.slice(0, -sums.length));
    if (names.length === 0) throw notAnImatrix(path);
    const means: Record<string, Float32Array> = {};
    for (const name of names) {
      const squares = await file.read(name + sums);
      const [count] = await file.read(name + counts);
      means[name] = squares.map((sum) => sum / count!);
    }
    return means;
  } finally {
    await file.close();
  }
}

function notAnImatrix(path: string): EspalierError {
  return new EspalierError({
    where: path,
    expected: `an importance matrix: tensors named *${sums} and *${counts}`,
    found: "none",
    fix: "llama.cpp's llama-imatrix writes such files with the ending .gguf; the older .dat format is not read",
    exitCode: 2,
  });
}

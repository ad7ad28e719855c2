/** @module What is quantised: a `.gguf` file, or a Hugging Face directory written as one first. */
import { EspalierError, temporaryName } from "../base/index.js";
import { openGgufFile, type WritableType } from "../formats/index.js";
import { openModel, writeGguf } from "../models/index.js";
import type { QuantiseSource } from "./types.js";

/** Writes a directory's weights as f32 beside `out`, in a file that `dispose` removes. A `.gguf` is taken as it is. */
export async function openSource(path: string, out: string): Promise<QuantiseSource & { dispose(): Promise<void> }> {
  if (path.endsWith(".gguf")) return { ...(await describe(path)), dispose: async () => {} };
  const { rm } = await import("node:fs/promises");
  const gguf = `${temporaryName(out)}.source.gguf`;
  const dispose = () => rm(gguf, { force: true });
  try {
    await convert(path, gguf, "f32");
    return { ...(await describe(gguf)), dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}

async function convert(path: string, gguf: string, type: WritableType): Promise<void> {
  const model = await openModel(path);
  try {
    await writeGguf(model, gguf, { type });
  } finally {
    await model.close();
  }
}

async function describe(gguf: string): Promise<QuantiseSource> {
  const file = await openGgufFile(gguf);
  try {
    if (file.metadata.get("split.count")) throw isSplit(gguf);
    const counts = new Map<string, number>();
    for (const name of file.names) {
      const { type, shape } = file.info(name)!;
      if (shape.length > 1) counts.set(type, (counts.get(type) ?? 0) + 1);
    }
    return { gguf, types: [...counts].sort((a, b) => b[1] - a[1]).map(([type]) => type) };
  } finally {
    await file.close();
  }
}

function isSplit(gguf: string): EspalierError {
  return new EspalierError({
    where: gguf,
    expected: "a model in one file",
    found: "one part of several",
    fix: "join the parts with llama.cpp's gguf-split --merge",
    exitCode: 2,
  });
}

import { type ByteSource, EspalierError, openFile } from "../../base/index.js";
import { checkRows, countElements, readByRows, type TensorFile } from "../checkpoint.js";
import { dequantise } from "./dequantise.js";
import { type GgufTensor, readGgufHeader } from "./header.js";
import type { GgufMetadata } from "./types.js";

/** A GGUF file: its metadata, and tensors read one at a time as f32. */
export interface GgufFile extends TensorFile {
  readonly version: number;
  readonly metadata: GgufMetadata;
}

/** Opens a GGUF file by path. Reads the header only. */
export async function openGgufFile(path: string): Promise<GgufFile> {
  const source = await openFile(path);
  try {
    return await openGguf(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** Opens a GGUF file. Reading a tensor allocates four bytes for each value, and a piece of it as the file has it. */
export async function openGguf(source: ByteSource): Promise<GgufFile> {
  const { version, metadata, tensors } = await readGgufHeader(source);
  const tensorOf = (name: string): GgufTensor => {
    const tensor = tensors.get(name);
    if (tensor) return tensor;
    throw new EspalierError({ where: source.name, expected: `a tensor ${name}`, found: "none" });
  };
  const readRows = async (name: string, from: number, to: number, into?: Float32Array): Promise<Float32Array> => {
    const { type, shape, offset, byteLength } = tensorOf(name);
    const where = `${source.name} tensor ${name}`;
    checkRows(where, shape, from, to);
    // Blocks lie along the last axis, so that a row is a whole number of them.
    const row = byteLength / Math.max(1, shape[0] ?? 1);
    const bytes = await source.read(offset + from * row, (to - from) * row);
    return dequantise(type.name, bytes, (to - from) * countElements(shape.slice(1)), where, into);
  };
  return {
    version,
    metadata,
    names: [...tensors.keys()],
    info(name) {
      const tensor = tensors.get(name);
      return tensor && { type: tensor.type.name, shape: tensor.shape, byteLength: tensor.byteLength };
    },
    read: async (name) => {
      const { shape, byteLength } = tensorOf(name);
      // A one-dimensional tensor may hold a block over several of its rows.
      if (shape.length > 1) return readByRows(shape, (...rows) => readRows(name, ...rows));
      const { type, offset } = tensorOf(name);
      const bytes = await source.read(offset, byteLength);
      return dequantise(type.name, bytes, countElements(shape), `${source.name} tensor ${name}`);
    },
    readRows: (name, from, to) => readRows(name, from, to),
    close: () => source.close(),
  };
}

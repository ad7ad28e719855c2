import { type ByteSource, EspalierError, openFile } from "../../base/index.js";
import { countElements, type TensorFile } from "../checkpoint.js";
import { dequantise } from "./dequantise.js";
import { readGgufHeader } from "./header.js";
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

/** Opens a GGUF file. Reading a tensor allocates its bytes in the file and four bytes for each value. */
export async function openGguf(source: ByteSource): Promise<GgufFile> {
  const { version, metadata, tensors } = await readGgufHeader(source);
  return {
    version,
    metadata,
    names: [...tensors.keys()],
    info(name) {
      const tensor = tensors.get(name);
      return tensor && { type: tensor.type.name, shape: tensor.shape, byteLength: tensor.byteLength };
    },
    async read(name) {
      const tensor = tensors.get(name);
      if (!tensor) throw new EspalierError({ where: source.name, expected: `a tensor ${name}`, found: "none" });
      const bytes = await source.read(tensor.offset, tensor.byteLength);
      return dequantise(tensor.type.name, bytes, countElements(tensor.shape), `${source.name} tensor ${name}`);
    },
    close: () => source.close(),
  };
}

import { createAtomicWriter, EspalierError } from "../../base/index.js";
import { countElements, plannedPieces, type TensorPlan } from "../checkpoint.js";
import { quantise } from "./quantise.js";
import {
  defaultAlignment,
  type GgufArray,
  type GgufEntry,
  type GgufScalar,
  padTo,
  type ScalarType,
  tensorTypes,
  valueTypes,
  type WritableType,
  writableTypes,
  writtenBytes,
} from "./types.js";

/** One tensor of a GGUF file with the type it is to have. */
export interface GgufTensorPlan extends TensorPlan {
  type: WritableType;
}

export type GgufEntries = readonly (readonly [key: string, entry: GgufEntry])[];

/**
 * The type that llama.cpp's quantiser gives a tensor of a model stored as `wanted`: one-dimensional tensors stay F32, and
 * rows that do not fill whole blocks become F16.
 */
export function resolveTensorType(wanted: WritableType, shape: readonly number[]): WritableType {
  if (shape.length < 2) return "f32";
  return wanted === "q8_0" && shape.at(-1)! % 32 !== 0 ? "f16" : wanted;
}

/**
 * Writes a GGUF file, version 3, alignment 32, tensors in the order given and one at a time. Equal input gives equal
 * bytes.
 */
export async function writeGgufFile(
  path: string,
  entries: GgufEntries,
  tensors: readonly GgufTensorPlan[],
): Promise<void> {
  for (const { name } of tensors) checkTensorName(name);
  const writer = await createAtomicWriter(path);
  try {
    await writer.write(buildHeader(entries, tensors));
    for (const tensor of tensors) {
      let written = 0;
      for await (const values of plannedPieces(tensor)) {
        const bytes = quantise(tensor.type, values, `tensor ${tensor.name}`);
        await writer.write(bytes);
        written += bytes.byteLength;
      }
      const padding = padTo(written, defaultAlignment) - written;
      if (padding > 0) await writer.write(new Uint8Array(padding));
    }
  } catch (error) {
    await writer.abort();
    throw error;
  }
  await writer.commit();
}

/** llama.cpp refuses names of 64 bytes and more. */
function checkTensorName(name: string): void {
  if (new TextEncoder().encode(name).byteLength < 64) return;
  throw new EspalierError({ where: `tensor ${name}`, expected: "a name of at most 63 bytes", found: `${name.length}` });
}

/** Bytes of the file that {@link writeGgufFile} would write. */
export function ggufFileBytes(entries: GgufEntries, tensors: readonly GgufTensorPlan[]): number {
  const data = tensors.map(({ type, shape }) => padTo(writtenBytes(type, countElements(shape)), defaultAlignment));
  return data.reduce((a, b) => a + b, buildHeader(entries, tensors).byteLength);
}

function buildHeader(entries: GgufEntries, tensors: readonly GgufTensorPlan[]): Uint8Array {
  const out = createByteWriter();
  out.scalar("u32", 0x46554747);
  out.scalar("u32", 3);
  out.scalar("u64", tensors.length);
  out.scalar("u64", entries.length);
  for (const [key, entry] of entries) {
    out.scalar("string", key);
    out.scalar("u32", valueTypes.indexOf(entry.type));
    if (entry.type === "array") out.array(entry.of, entry.value);
    else out.scalar(entry.type, entry.value);
  }
  let offset = 0;
  for (const { name, shape, type } of tensors) {
    out.scalar("string", name);
    out.scalar("u32", shape.length);
    for (const size of [...shape].reverse()) out.scalar("u64", size);
    out.scalar("u32", writableTypes[type]);
    out.scalar("u64", offset);
    const { block } = tensorTypes[writableTypes[type]]!;
    if ((shape.at(-1) ?? 1) % block !== 0) {
      throw new EspalierError({
        where: `tensor ${name}`,
        expected: `rows in blocks of ${block} for ${type}`,
        found: `[${shape}]`,
      });
    }
    offset = padTo(offset + writtenBytes(type, countElements(shape)), defaultAlignment);
  }
  out.pad(defaultAlignment);
  return out.bytes();
}

function createByteWriter() {
  let buffer = new Uint8Array(1 << 16);
  let view = new DataView(buffer.buffer);
  let at = 0;
  const room = (length: number): number => {
    if (at + length > buffer.byteLength) {
      const grown = new Uint8Array(Math.max(2 * buffer.byteLength, at + length));
      grown.set(buffer);
      buffer = grown;
      view = new DataView(buffer.buffer);
    }
    at += length;
    return at - length;
  };
  // The position is taken first: making room may replace the buffer and its view.
  const put = (length: number, write: (position: number) => void) => write(room(length));
  const string = (text: string) => {
    const encoded = new TextEncoder().encode(text);
    put(8, (p) => view.setBigUint64(p, BigInt(encoded.byteLength), true));
    put(encoded.byteLength, (p) => buffer.set(encoded, p));
  };
  const setters: { [T in ScalarType]: (value: never) => void } = {
    u8: (x: number) => put(1, (p) => view.setUint8(p, x)),
    i8: (x: number) => put(1, (p) => view.setInt8(p, x)),
    u16: (x: number) => put(2, (p) => view.setUint16(p, x, true)),
    i16: (x: number) => put(2, (p) => view.setInt16(p, x, true)),
    u32: (x: number) => put(4, (p) => view.setUint32(p, x, true)),
    i32: (x: number) => put(4, (p) => view.setInt32(p, x, true)),
    f32: (x: number) => put(4, (p) => view.setFloat32(p, x, true)),
    f64: (x: number) => put(8, (p) => view.setFloat64(p, x, true)),
    bool: (x: boolean) => put(1, (p) => view.setUint8(p, x ? 1 : 0)),
    u64: (x: number | bigint) => put(8, (p) => view.setBigUint64(p, BigInt(x), true)),
    i64: (x: number | bigint) => put(8, (p) => view.setBigInt64(p, BigInt(x), true)),
    string,
  };
  const scalar = (type: ScalarType, value: GgufScalar) => setters[type](value as never);
  return {
    scalar,
    array(of: ScalarType, values: GgufArray) {
      scalar("u32", valueTypes.indexOf(of));
      scalar("u64", values.length);
      for (const value of values) scalar(of, value);
    },
    pad(alignment: number) {
      room(padTo(at, alignment) - at);
    },
    bytes: () => buffer.subarray(0, at),
  };
}

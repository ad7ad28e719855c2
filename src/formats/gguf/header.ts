/**
 * @module Parses a GGUF header: metadata and the list of tensors. Versions 2 and 3, little-endian.
 *
 * Bounds: a header may take at most 64 MiB of the file, and nothing is allocated for a length that the header's own
 * remaining bytes could not fill, so a damaged length costs an error and no memory.
 */
import { type ByteSource, EspalierError } from "../../base/index.js";
import {
  defaultAlignment,
  type GgufArray,
  type GgufEntry,
  type GgufMetadata,
  type GgufScalar,
  padTo,
  type ScalarType,
  type TensorType,
  tensorTypes,
  valueTypes,
} from "./types.js";

export const maxHeaderBytes = 64 << 20;

export interface GgufTensor {
  name: string;
  type: TensorType;
  /** Row-major, the reverse of the order in the file. */
  shape: number[];
  /** Position in the file, in bytes. */
  offset: number;
  byteLength: number;
}

export interface GgufHeader {
  version: number;
  metadata: GgufMetadata;
  tensors: Map<string, GgufTensor>;
}

/** Reads more and more of the file until the header fits: most take a few MiB, nearly all of it vocabulary. */
export async function readGgufHeader(source: ByteSource): Promise<GgufHeader> {
  const limit = Math.min(source.byteLength, maxHeaderBytes);
  for (let length = Math.min(4 << 20, limit); ; length = Math.min(4 * length, limit)) {
    const cursor = createCursor(await source.read(0, length), source.name);
    try {
      return parseHeader(cursor, source);
    } catch (error) {
      if (!(error instanceof NeedsMore)) throw error;
      if (length < limit && error.at + error.wanted <= limit) continue;
      throw new EspalierError({
        where: `${source.name} @ 0x${error.at.toString(16)}`,
        expected: `${error.wanted} more bytes of header`,
        found: limit === source.byteLength ? "the end of the file" : `a header beyond ${maxHeaderBytes} bytes`,
        fix: "the file is truncated or damaged; fetch it again",
      });
    }
  }
}

/** Thrown by the cursor where the bytes at hand end; caught above. */
class NeedsMore extends Error {
  constructor(
    readonly at: number,
    readonly wanted: number,
  ) {
    super("needs more bytes");
  }
}

interface Cursor {
  readonly where: () => string;
  readonly position: () => number;
  u32(): number;
  /** A length, count or offset: refused where it is not a safe integer. */
  size(): number;
  string(): string;
  scalar(type: ScalarType): GgufScalar;
  array(type: ScalarType): GgufArray;
}

const scalarBytes: Record<ScalarType, number> = {
  u8: 1,
  i8: 1,
  u16: 2,
  i16: 2,
  u32: 4,
  i32: 4,
  f32: 4,
  bool: 1,
  string: 8,
  u64: 8,
  i64: 8,
  f64: 8,
};

function createCursor(bytes: Uint8Array, name: string): Cursor {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  // Vocabularies may hold pieces that are not whole UTF-8; those become replacement characters, as in llama.cpp's output.
  const decoder = new TextDecoder();
  let at = 0;
  const where = () => `${name} @ 0x${at.toString(16)}`;
  const take = (length: number): number => {
    if (at + length > bytes.byteLength) throw new NeedsMore(at, length);
    at += length;
    return at - length;
  };
  const wide = (value: bigint): number | bigint =>
    value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
  const size = (): number => {
    const start = where();
    const value = view.getBigUint64(take(8), true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new EspalierError({ where: start, expected: "a length", found: `${value}`, fix: "the file is damaged" });
    }
    return Number(value);
  };
  const string = (): string => {
    const length = size();
    const start = take(length);
    return decoder.decode(bytes.subarray(start, start + length));
  };
  const scalar = (type: ScalarType): GgufScalar => {
    switch (type) {
      case "u8":
        return view.getUint8(take(1));
      case "i8":
        return view.getInt8(take(1));
      case "u16":
        return view.getUint16(take(2), true);
      case "i16":
        return view.getInt16(take(2), true);
      case "u32":
        return view.getUint32(take(4), true);
      case "i32":
        return view.getInt32(take(4), true);
      case "f32":
        return view.getFloat32(take(4), true);
      case "f64":
        return view.getFloat64(take(8), true);
      case "bool":
        return view.getUint8(take(1)) !== 0;
      case "u64":
        return wide(view.getBigUint64(take(8), true));
      case "i64":
        return wide(view.getBigInt64(take(8), true));
      case "string":
        return string();
    }
  };
  const list = (type: ScalarType, count: number) => Array.from({ length: count }, () => scalar(type));
  const array = (type: ScalarType): GgufArray => {
    const count = size();
    // A string takes at least its own length field, so this bounds the number of elements by the bytes at hand.
    if (at + count * scalarBytes[type] > bytes.byteLength) throw new NeedsMore(at, count * scalarBytes[type]);
    switch (type) {
      case "string":
        return list(type, count) as string[];
      case "bool":
        return list(type, count) as boolean[];
      case "u64":
      case "i64":
        return list(type, count) as (number | bigint)[];
      default: {
        const start = take(count * scalarBytes[type]);
        const Typed = typedArrays[type];
        return new Typed(bytes.slice(start, start + count * scalarBytes[type]).buffer as ArrayBuffer);
      }
    }
  };
  return { where, position: () => at, u32: () => scalar("u32") as number, size, string, scalar, array };
}

const typedArrays = {
  u8: Uint8Array,
  i8: Int8Array,
  u16: Uint16Array,
  i16: Int16Array,
  u32: Uint32Array,
  i32: Int32Array,
  f32: Float32Array,
  f64: Float64Array,
};

function parseHeader(cursor: Cursor, source: ByteSource): GgufHeader {
  const version = parseVersion(cursor, source.name);
  const tensorCount = cursor.size();
  const entryCount = cursor.size();
  const metadata = new Map<string, GgufEntry>();
  for (let i = 0; i < entryCount; i++) {
    const where = cursor.where();
    const key = cursor.string();
    if (metadata.has(key)) throw new EspalierError({ where, found: `metadata key ${key} for a second time` });
    metadata.set(key, parseEntry(cursor, key));
  }
  const tensors = new Map<string, GgufTensor>();
  for (let i = 0; i < tensorCount; i++) {
    const where = cursor.where();
    const tensor = parseTensor(cursor);
    if (tensors.has(tensor.name)) throw new EspalierError({ where, found: `tensor ${tensor.name} for a second time` });
    tensors.set(tensor.name, tensor);
  }
  placeTensors(tensors, cursor.position(), { alignment: alignmentOf(metadata, source.name), source });
  return { version, metadata, tensors };
}

function parseVersion(cursor: Cursor, where: string): number {
  const magic = cursor.u32();
  if (magic !== 0x46554747) {
    throw new EspalierError({
      where,
      expected: 'a GGUF file (it begins with "GGUF")',
      found: `0x${magic.toString(16)}`,
    });
  }
  const version = cursor.u32();
  if (version === 2 || version === 3) return version;
  const bigEndian = version > 0xffff && (version & 0xffff) === 0;
  throw new EspalierError({
    where,
    expected: "GGUF version 2 or 3, little-endian",
    found: bigEndian ? "a big-endian file" : `version ${version}`,
    fix: "convert it again with a current llama.cpp",
  });
}

function parseEntry(cursor: Cursor, key: string): GgufEntry {
  const type = parseValueType(cursor, key);
  if (type !== "array") return { type, value: cursor.scalar(type) };
  const of = parseValueType(cursor, key);
  if (of === "array") throw new EspalierError({ where: cursor.where(), found: `an array of arrays in ${key}` });
  return { type, of, value: cursor.array(of) };
}

function parseValueType(cursor: Cursor, key: string) {
  const where = cursor.where();
  const number = cursor.u32();
  const type = valueTypes[number];
  if (type) return type;
  throw new EspalierError({
    where,
    expected: `a value type of 0 to ${valueTypes.length - 1} for ${key}`,
    found: `${number}`,
  });
}

function parseTensor(cursor: Cursor): GgufTensor {
  const where = cursor.where();
  const name = cursor.string();
  const dimensions = cursor.u32();
  if (dimensions > 4)
    throw new EspalierError({ where, expected: `at most 4 dimensions for ${name}`, found: `${dimensions}` });
  const sizes = Array.from({ length: dimensions }, () => cursor.size());
  const number = cursor.u32();
  const type = tensorTypes[number];
  if (!type) {
    throw new EspalierError({
      where,
      found: `tensor ${name} of unknown type ${number}`,
      fix: "re-export as Q8_0 or F16",
    });
  }
  const elements = sizes.reduce((a, b) => a * b, 1);
  if (!Number.isSafeInteger(elements) || (sizes[0] ?? 1) % type.block !== 0) {
    const expected = `whole blocks of ${type.block} for ${name} (${type.name})`;
    throw new EspalierError({ where, expected, found: `shape [${sizes}]`, fix: "the file is damaged" });
  }
  const byteLength = (elements / type.block) * type.bytes;
  return { name, type, shape: sizes.reverse(), offset: cursor.size(), byteLength };
}

function alignmentOf(metadata: GgufMetadata, name: string): number {
  const entry = metadata.get("general.alignment");
  if (!entry) return defaultAlignment;
  const { value } = entry;
  const fits = typeof value === "number" && value >= 8 && value <= 1 << 20 && Number.isInteger(Math.log2(value));
  if (fits) return value;
  throw new EspalierError({
    where: `${name} general.alignment`,
    expected: "a power of two from 8 to 1 MiB",
    found: `${value}`,
  });
}

/** Turns offsets into positions in the file; as in llama.cpp, tensors follow one another with nothing but padding between. */
function placeTensors(
  tensors: Map<string, GgufTensor>,
  headerEnd: number,
  { alignment, source }: { alignment: number; source: ByteSource },
): void {
  const start = padTo(headerEnd, alignment);
  let next = 0;
  for (const tensor of tensors.values()) {
    const where = `${source.name} tensor ${tensor.name}`;
    if (tensor.offset !== next) {
      throw new EspalierError({ where, expected: `data at byte ${next}`, found: `byte ${tensor.offset}` });
    }
    tensor.offset += start;
    const end = tensor.offset + tensor.byteLength;
    if (end > source.byteLength) {
      const found = `a file of ${source.byteLength} bytes`;
      throw new EspalierError({
        where,
        expected: `data up to byte ${end}`,
        found,
        fix: "the file is truncated; fetch it again",
      });
    }
    next = padTo(next + tensor.byteLength, alignment);
  }
}

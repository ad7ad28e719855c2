/**
 * @module safetensors: 8 bytes of header length, a JSON header, then the tensors' bytes one after another.
 * https://github.com/huggingface/safetensors#format. A model is one such file, or shards beside an index file.
 *
 * Reading is lazy, one tensor at a time. Bounds: a header may take at most 32 MiB, and reading a tensor allocates
 * four bytes for each value, and a piece of it as the file has it.
 */
import { readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import {
  type ByteSource,
  checkSchema,
  createAtomicWriter,
  EspalierError,
  fileError,
  messageOf,
  openFile,
  writeJsonAtomic,
  z,
} from "../base/index.js";
import { checkRows, countElements, plannedPieces, readByRows, type TensorFile, type TensorPlan } from "./checkpoint.js";
import { decodeFloats, encodeFloats, type FloatType, floatBytes } from "./floats.js";

export const maxHeaderBytes = 32 << 20;

/** Bytes of one element for every type of the format; only the first three can be read as weights. */
const dtypeBytes: Record<string, number> = {
  F32: 4,
  F16: 2,
  BF16: 2,
  F64: 8,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
};
const floatTypes: Record<string, FloatType> = { F32: "f32", F16: "f16", BF16: "bf16" };
const dtypeNames = { f32: "F32", f16: "F16", bf16: "BF16" } as const satisfies Record<FloatType, string>;

export interface SafetensorsEntry {
  dtype: string;
  shape: number[];
  /** Position in the file, in bytes. */
  offset: number;
  byteLength: number;
}

export interface SafetensorsHeader {
  entries: Map<string, SafetensorsEntry>;
  /** The free-text `__metadata__`. */
  metadata: Record<string, string>;
}

const entrySchema = z.object({
  dtype: z.string(),
  shape: z.array(z.number().int().nonnegative()).max(8),
  data_offsets: z.tuple([z.number().int().nonnegative(), z.number().int().nonnegative()]),
});

/** Parses and checks a header: types known, shapes equal to byte ranges, ranges inside the file without holes or overlap. */
export async function readSafetensorsHeader(source: ByteSource): Promise<SafetensorsHeader> {
  const where = source.name;
  const length = await readHeaderLength(source);
  const text = decodeUtf8(await source.read(8, length), where);
  const json = checkSchema(z.record(z.string(), z.unknown()), parseJson(text, where), `${where} header`);
  checkDuplicateKeys(text, where);
  const { __metadata__: metadata = {}, ...tensors } = json;
  const dataStart = 8 + length;
  const entries = new Map<string, SafetensorsEntry>();
  for (const [name, value] of Object.entries(tensors)) {
    entries.set(name, parseEntry(name, value, { where, dataStart }));
  }
  checkContiguous(entries, { where, start: dataStart, end: source.byteLength });
  return { entries, metadata: checkSchema(z.record(z.string(), z.string()), metadata, `${where} __metadata__`) };
}

async function readHeaderLength(source: ByteSource): Promise<number> {
  if (source.byteLength < 8) {
    throw new EspalierError({
      where: source.name,
      expected: "a safetensors file",
      found: `${source.byteLength} bytes`,
    });
  }
  const bytes = await source.read(0, 8);
  const length = new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
  const limit = Math.min(maxHeaderBytes, source.byteLength - 8);
  if (length >= 2n && length <= BigInt(limit)) return Number(length);
  throw new EspalierError({
    where: `${source.name} @ 0x0`,
    expected: `a header of 2 to ${limit} bytes`,
    found: `${length} bytes`,
    fix: "the file is truncated or not safetensors; fetch it again",
  });
}

function decodeUtf8(bytes: Uint8Array, where: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new EspalierError({ where: `${where} header`, expected: "UTF-8 text", found: messageOf(cause), cause });
  }
}

function parseJson(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new EspalierError({ where: `${where} header`, expected: "JSON", found: messageOf(cause), cause });
  }
}

/** JSON.parse keeps the last of two equal keys; two tensors of one name are an ambiguity, not a preference. */
function checkDuplicateKeys(text: string, where: string): void {
  const seen = new Set<string>();
  let depth = 0;
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"(?:\s*:)?|[{}[\]]/g)) {
    if (token === "{" || token === "[") depth++;
    else if (token === "}" || token === "]") depth--;
    else if (depth === 1 && token.endsWith(":")) {
      const key = JSON.parse(token.slice(0, -1).trimEnd()) as string;
      if (seen.has(key)) throw new EspalierError({ where: `${where} header`, found: `two entries named ${key}` });
      seen.add(key);
    }
  }
}

function parseEntry(name: string, value: unknown, at: { where: string; dataStart: number }): SafetensorsEntry {
  const where = `${at.where} tensor ${name}`;
  const { dtype, shape, data_offsets: offsets } = checkSchema(entrySchema, value, where);
  const size = dtypeBytes[dtype];
  if (size === undefined) {
    const known = Object.keys(dtypeBytes).join(", ");
    throw new EspalierError({ where, expected: `one of the types ${known}`, found: dtype });
  }
  const [start, end] = offsets;
  const expected = shape.reduce((a, b) => a * b, size);
  if (end - start !== expected) {
    const fix = "the header is damaged; fetch the file again";
    throw new EspalierError({
      where,
      expected: `${expected} bytes for ${dtype} [${shape}]`,
      found: `${end - start}`,
      fix,
    });
  }
  return { dtype, shape, offset: at.dataStart + start, byteLength: end - start };
}

function checkContiguous(
  entries: Map<string, SafetensorsEntry>,
  { where, start, end }: { where: string; start: number; end: number },
): void {
  let at = start;
  for (const [name, entry] of [...entries].sort(([, a], [, b]) => a.offset - b.offset || a.byteLength - b.byteLength)) {
    if (entry.offset !== at) {
      const found = `byte ${entry.offset - start}`;
      throw new EspalierError({ where: `${where} tensor ${name}`, expected: `data at byte ${at - start}`, found });
    }
    at += entry.byteLength;
  }
  if (at === end) return;
  throw new EspalierError({
    where,
    expected: `a file of ${at} bytes`,
    found: `${end} bytes`,
    fix: "the file is truncated or has been appended to; fetch it again",
  });
}

/** Opens one safetensors file. Takes over the source and closes it. */
export async function openSafetensors(source: ByteSource): Promise<TensorFile & { metadata: Record<string, string> }> {
  const { entries, metadata } = await readSafetensorsHeader(source);
  const entryOf = (name: string): SafetensorsEntry => {
    const entry = entries.get(name);
    if (entry) return entry;
    throw new EspalierError({ where: source.name, expected: `a tensor ${name}`, found: "none" });
  };
  const readRows = async (name: string, from: number, to: number, into?: Float32Array): Promise<Float32Array> => {
    const { dtype, shape, offset, byteLength } = entryOf(name);
    const where = `${source.name} tensor ${name}`;
    const type = floatTypes[dtype] ?? refuseType(where, dtype);
    checkRows(where, shape, from, to);
    const row = byteLength / Math.max(1, shape[0] ?? 1);
    return decodeFloats(type, await source.read(offset + from * row, (to - from) * row), into);
  };
  return {
    names: [...entries.keys()],
    metadata,
    info(name) {
      const entry = entries.get(name);
      return entry && { type: entry.dtype, shape: entry.shape, byteLength: entry.byteLength };
    },
    read: async (name) => readByRows(entryOf(name).shape, (...rows) => readRows(name, ...rows)),
    readRows: (name, from, to) => readRows(name, from, to),
    close: () => source.close(),
  };
}

function refuseType(where: string, found: string): never {
  throw new EspalierError({
    where,
    expected: "F32, F16 or BF16",
    found,
    fix: "convert the checkpoint to one of them",
  });
}

const indexSchema = z.object({
  weight_map: z.record(z.string(), z.string().regex(/^[^/\\]+$/, "expected a file name")),
});

/** Opens the shards that a `model.safetensors.index.json` names; all must be there and hold what the index says. */
export async function openShardedSafetensors(indexPath: string): Promise<TensorFile> {
  const bytes = await readFile(indexPath).catch((cause) => {
    throw fileError(indexPath, cause);
  });
  if (bytes.byteLength > maxHeaderBytes) {
    throw new EspalierError({
      where: indexPath,
      expected: `at most ${maxHeaderBytes} bytes`,
      found: `${bytes.byteLength}`,
    });
  }
  const { weight_map: map } = checkSchema(indexSchema, parseJson(decodeUtf8(bytes, indexPath), indexPath), indexPath);
  const shards = new Map<string, TensorFile>();
  const close = async () => {
    for (const shard of shards.values()) await shard.close();
  };
  try {
    for (const file of new Set(Object.values(map))) {
      shards.set(file, await openSafetensorsFile(join(dirname(indexPath), file)));
    }
    for (const [name, file] of Object.entries(map)) {
      if (shards.get(file)!.info(name)) continue;
      throw new EspalierError({ where: indexPath, expected: `${name} in ${file}`, found: "no such tensor there" });
    }
  } catch (error) {
    await close();
    throw error;
  }
  const shardOf = (name: string) => shards.get(map[name] ?? "");
  const holderOf = (name: string): TensorFile => {
    const shard = shardOf(name);
    if (shard) return shard;
    throw new EspalierError({ where: indexPath, expected: `a tensor ${name}`, found: "none" });
  };
  return {
    names: Object.keys(map),
    info: (name) => shardOf(name)?.info(name),
    read: async (name) => holderOf(name).read(name),
    readRows: async (name, from, to) => holderOf(name).readRows(name, from, to),
    close,
  };
}

/** Opens a safetensors file by path. */
export async function openSafetensorsFile(path: string): Promise<TensorFile & { metadata: Record<string, string> }> {
  const source = await openFile(path);
  try {
    return await openSafetensors(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

export interface SafetensorsOptions {
  /** Type of every tensor in the file. Defaults to f32. */
  type?: FloatType;
  /** Free text for `__metadata__`. Defaults to `{ format: "pt" }`, which transformers asks for. */
  metadata?: Record<string, string>;
}

/** Writes one file, tensors in the order given. Equal tensors give equal bytes. */
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorPlan[],
  { type = "f32", metadata = { format: "pt" } }: SafetensorsOptions = {},
): Promise<void> {
  const writer = await createAtomicWriter(path);
  try {
    await writer.write(buildHeader(tensors, type, metadata));
    for (const tensor of tensors) {
      for await (const values of plannedPieces(tensor)) {
        await writer.write(encodeFloats(type, values, `tensor ${tensor.name}`));
      }
    }
  } catch (error) {
    await writer.abort();
    throw error;
  }
  await writer.commit();
}

function buildHeader(tensors: readonly TensorPlan[], type: FloatType, metadata: Record<string, string>): Uint8Array {
  let offset = 0;
  const header: Record<string, unknown> = { __metadata__: metadata };
  for (const { name, shape } of tensors) {
    const end = offset + byteLengthOf(shape, type);
    header[name] = { dtype: dtypeNames[type], shape, data_offsets: [offset, end] };
    offset = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  // Padded with spaces so that the data starts at a multiple of eight, as the format asks.
  const length = Math.ceil(json.byteLength / 8) * 8;
  const bytes = new Uint8Array(8 + length).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(json, 8);
  return bytes;
}

function byteLengthOf(shape: readonly number[], type: FloatType): number {
  return countElements(shape) * floatBytes[type];
}

export interface ShardOptions extends SafetensorsOptions {
  /** Largest shard in bytes; a single larger tensor gets a shard of its own. Defaults to 5 GB, as transformers writes. */
  maxShardBytes?: number;
}

/** Writes `model.safetensors`, or shards and their index where that would pass `maxShardBytes`. Returns the file names. */
export async function writeShardedSafetensors(
  directory: string,
  tensors: readonly TensorPlan[],
  { maxShardBytes = 5e9, type = "f32", ...options }: ShardOptions = {},
): Promise<string[]> {
  const shards = splitIntoShards(tensors, type, maxShardBytes);
  if (shards.length === 1) {
    await writeSafetensors(join(directory, "model.safetensors"), tensors, { type, ...options });
    return ["model.safetensors"];
  }
  const weightMap: Record<string, string> = {};
  const files: string[] = [];
  for (const [index, shard] of shards.entries()) {
    const path = join(directory, shardName(index, shards.length));
    await writeSafetensors(path, shard, { type, ...options });
    files.push(basename(path));
    for (const { name } of shard) weightMap[name] = basename(path);
  }
  const totalSize = tensors.reduce((sum, { shape }) => sum + byteLengthOf(shape, type), 0);
  const index = "model.safetensors.index.json";
  await writeJsonAtomic(join(directory, index), { metadata: { total_size: totalSize }, weight_map: weightMap });
  return [...files, index];
}

function splitIntoShards(tensors: readonly TensorPlan[], type: FloatType, limit: number): TensorPlan[][] {
  const shards: TensorPlan[][] = [[]];
  let bytes = 0;
  for (const tensor of tensors) {
    const size = byteLengthOf(tensor.shape, type);
    if (bytes + size > limit && shards.at(-1)!.length > 0) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)!.push(tensor);
    bytes += size;
  }
  return shards;
}

function shardName(index: number, count: number): string {
  const pad = (n: number) => String(n).padStart(5, "0");
  return `model-${pad(index + 1)}-of-${pad(count)}.safetensors`;
}

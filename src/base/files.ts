import { createHash } from "node:crypto";
import { mkdir, open, readFile, rename, rm, stat, statfs } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { EspalierError, isNodeError, messageOf } from "./errors.js";

/** Bytes at random positions, whatever holds them. */
export interface ByteSource {
  readonly name: string;
  readonly byteLength: number;
  read(offset: number, length: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

export async function openFile(path: string): Promise<ByteSource> {
  const handle = await open(path, "r").catch((cause) => {
    throw fileError(path, cause);
  });
  const { size } = await handle.stat();
  return {
    name: path,
    byteLength: size,
    async read(offset, length) {
      checkRange(path, size, offset, length);
      const bytes = new Uint8Array(length);
      let done = 0;
      // One read call returns at most 2 GiB, and may return less.
      while (done < length) {
        const { bytesRead } = await handle.read(bytes, done, Math.min(length - done, 1 << 30), offset + done);
        if (bytesRead === 0) throw new EspalierError({ where: path, found: `end of file at byte ${offset + done}` });
        done += bytesRead;
      }
      return bytes;
    },
    close: () => handle.close(),
  };
}

export function memorySource(bytes: Uint8Array, name: string): ByteSource {
  return {
    name,
    byteLength: bytes.byteLength,
    async read(offset, length) {
      checkRange(name, bytes.byteLength, offset, length);
      return bytes.slice(offset, offset + length);
    },
    close: async () => {},
  };
}

function checkRange(where: string, size: number, offset: number, length: number): void {
  if (offset >= 0 && length >= 0 && offset + length <= size) return;
  throw new EspalierError({
    where,
    expected: `bytes ${offset} to ${offset + length}`,
    found: `a file of ${size} bytes`,
    fix: "the file is truncated or not of this format; fetch or write it again",
  });
}

export interface AtomicWriter {
  write(chunk: Uint8Array): Promise<void>;
  /** Makes the file appear under its name. */
  commit(): Promise<void>;
  /** Leaves nothing behind. */
  abort(): Promise<void>;
}

/** Writes under a temporary name beside `path`; the file has its own name only once it is whole. */
export async function createAtomicWriter(path: string): Promise<AtomicWriter> {
  const temporary = temporaryName(path);
  const handle = await mkdir(dirname(path), { recursive: true })
    .then(() => open(temporary, "w"))
    .catch((cause) => {
      throw fileError(path, cause);
    });
  const abort = async () => {
    await handle.close().catch(() => {});
    await rm(temporary, { force: true });
  };
  const guarded = async (work: () => Promise<unknown>) => {
    try {
      await work();
    } catch (cause) {
      await abort();
      throw fileError(path, cause);
    }
  };
  return {
    write: (chunk) => guarded(() => writeAll(handle, chunk)),
    commit: () =>
      guarded(async () => {
        await handle.sync();
        await handle.close();
        await rename(temporary, path);
      }),
    abort,
  };
}

async function writeAll(handle: Awaited<ReturnType<typeof open>>, chunk: Uint8Array): Promise<void> {
  let done = 0;
  while (done < chunk.byteLength) {
    const { bytesWritten } = await handle.write(chunk, done, Math.min(chunk.byteLength - done, 1 << 30));
    done += bytesWritten;
  }
}

/** A name beside `path`, so that the rename stays within one file system; the process id keeps two runs apart. */
export function temporaryName(path: string): string {
  return `${path}.${process.pid}.tmp`;
}

export async function writeFileAtomic(path: string, data: string | Uint8Array): Promise<void> {
  const writer = await createAtomicWriter(path);
  await writer.write(typeof data === "string" ? new TextEncoder().encode(data) : data);
  await writer.commit();
}

export async function writeJsonAtomic(path: string, value: unknown): Promise<void> {
  await writeFileAtomic(path, `${JSON.stringify(value, null, 2)}\n`);
}

export async function readJson(path: string): Promise<unknown> {
  const text = await readText(path);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new EspalierError({ where: path, expected: "JSON", found: messageOf(cause), cause });
  }
}

export async function readText(path: string): Promise<string> {
  return readFile(path, "utf8").catch((cause) => {
    throw fileError(path, cause);
  });
}

export async function fileExists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** @throws EspalierError where something stands at the path already */
export async function checkFree(path: string): Promise<void> {
  const info = await stat(path).catch(() => undefined);
  if (!info) return;
  throw new EspalierError({
    where: path,
    expected: "a path that does not exist yet",
    found: info.isDirectory() ? "a directory" : "a file",
    fix: "choose another path or remove it",
    exitCode: 2,
  });
}

const reasons: Record<string, [found: string, fix: string]> = {
  ENOENT: ["nothing of that name", "check the path"],
  EACCES: ["no permission", "choose another path or change its permissions"],
  EPERM: ["no permission", "choose another path or change its permissions"],
  EROFS: ["a read-only file system", "choose another path"],
  EISDIR: ["a directory where a file was wanted", "name a file"],
  ENOTDIR: ["a file where a directory was wanted", "choose another path"],
  ENOSPC: [
    "a full disk",
    "free some space (`espalier clean` says what the store holds) and run the same command again",
  ],
  EMFILE: ["too many open files", "raise the limit (ulimit -n)"],
};

/** What an operating-system error means to the person who named the path. */
export function fileError(path: string, cause: unknown): unknown {
  if (cause instanceof EspalierError) return cause;
  for (const [code, [found, fix]] of Object.entries(reasons)) {
    if (isNodeError(cause, code)) return new EspalierError({ where: path, found, fix, cause });
  }
  return new EspalierError({ where: path, found: messageOf(cause), cause });
}

export function sha256(data: string | Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}

export async function hashFile(path: string): Promise<string> {
  const source = await openFile(path);
  const hash = createHash("sha256");
  const step = 1 << 22;
  for (let at = 0; at < source.byteLength; at += step) {
    hash.update(await source.read(at, Math.min(step, source.byteLength - at)));
  }
  await source.close();
  return hash.digest("hex");
}

/** sha256 of JSON with sorted keys: equal values have equal digests. */
export function digestJson(value: unknown): string {
  return sha256(canonicalJson(value));
}

function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    inner !== null && typeof inner === "object" && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

/** Bytes free on the disk that holds `path`, or will hold it. */
export async function freeDiskBytes(path: string): Promise<number> {
  const { bavail, bsize } = await statfs(await nearestExisting(resolve(path)));
  return bavail * bsize;
}

/** The path itself, or the first above it that is there. */
async function nearestExisting(path: string): Promise<string> {
  return (await fileExists(path)) ? path : nearestExisting(dirname(path));
}

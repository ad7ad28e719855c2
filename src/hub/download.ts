/**
 * @module One file over HTTP, whole or not at all: it grows under a name of its own beside its place, goes on where an
 * earlier attempt ended, and gets its final name when size and digest are as they were told.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { EspalierError, fileError, isNodeError, messageOf } from "../base/index.js";

/** How a file is known to be the right one. Git names small files by the SHA-1 of `blob SIZE\0` and their content. */
export type Digest = { kind: "sha256"; value: string } | { kind: "git-sha1"; value: string };

export interface Download {
  url: string;
  /** Final path. What is there already is taken for the file. */
  path: string;
  /** Bytes. Taken from the answer where it is not given. */
  size?: number;
  digest?: Digest;
  headers?: Readonly<Record<string, string>>;
}

export interface DownloadOptions {
  signal?: AbortSignal;
  /** Called with the bytes that are there, from an earlier attempt too, and with the size once it is known. */
  onBytes?: (done: number, size: number | undefined) => void;
  /** Attempts without a byte of progress before giving up. Defaults to 5. */
  attempts?: number;
  /** Milliseconds without a byte after which a connection counts as dead. Defaults to 30,000. */
  stallMs?: number;
  /** Waits between attempts. Defaults to a timer. */
  pause?: (milliseconds: number, signal?: AbortSignal) => Promise<unknown>;
}

export const partialName = (path: string) => `${path}.incomplete`;

/** @throws EspalierError when the server refuses, gives up, or sends something else than was told */
export async function downloadFile(download: Download, options: DownloadOptions = {}): Promise<void> {
  if (await sizeOf(download.path)) return;
  const { signal, attempts = 5, pause = (ms) => sleep(ms, undefined, signal ? { signal } : {}) } = options;
  await mkdir(dirname(download.path), { recursive: true }).catch((cause) => {
    throw fileError(download.path, cause);
  });
  for (let failed = 0; ; ) {
    signal?.throwIfAborted();
    const before = await sizeOf(partialName(download.path));
    const trouble = await attempt(download, options).catch((cause) => troubleOf(cause, signal));
    if (trouble === undefined) break;
    const progressed = (await sizeOf(partialName(download.path))) > before;
    failed = progressed ? 1 : failed + 1;
    if (failed >= attempts) throw gaveUp(download, trouble, failed);
    await pause(trouble.waitMs ?? 1000 * 2 ** (failed - 1), signal);
  }
  await verify(download);
  await rename(partialName(download.path), download.path);
}

/** Why an attempt ended early, when it is worth another. */
interface Trouble {
  what: string;
  /** What the server asks for. */
  waitMs?: number;
}

/** Undefined when the file is all there. */
async function attempt(download: Download, options: DownloadOptions): Promise<Trouble | undefined> {
  const have = await sizeOf(partialName(download.path));
  if (download.size !== undefined && have === download.size) return undefined;
  if (download.size !== undefined && have > download.size) await rm(partialName(download.path));
  const from = download.size !== undefined && have > download.size ? 0 : have;
  const watch = createWatch(options);
  try {
    const range: Record<string, string> = from > 0 ? { range: `bytes=${from}-` } : {};
    const response = await fetch(download.url, { headers: { ...download.headers, ...range }, signal: watch.signal });
    if (response.status === 416) return await noMore(download, response, from);
    const refused = refusal(download, response);
    if (refused) return refused;
    return await receive(download, response, { ...options, from: response.status === 206 ? from : 0, watch });
  } finally {
    watch.stop();
  }
}

/** All is here already, or what is here is of another file and goes. */
async function noMore({ path }: Download, response: Response, have: number): Promise<Trouble | undefined> {
  const total = /\*\/(\d+)/.exec(response.headers.get("content-range") ?? "")?.[1];
  if (Number(total) === have) return undefined;
  await rm(partialName(path), { force: true });
  return { what: "the server has less than is here already", waitMs: 0 };
}

/** Aborts when nothing has come for a while, or when the caller does. */
function createWatch({ signal, stallMs = 30_000 }: DownloadOptions) {
  const stalled = new AbortController();
  let timer: NodeJS.Timeout;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => stalled.abort(new Error(`nothing came for ${stallMs / 1000} s`)), stallMs);
  };
  alive();
  return {
    signal: signal ? AbortSignal.any([signal, stalled.signal]) : stalled.signal,
    alive,
    stop: () => clearTimeout(timer),
  };
}

const transient = new Set([408, 425, 429, 500, 502, 503, 504]);

/** What to wait for; throws for an answer that another attempt would not change. */
function refusal({ url, path }: Download, response: Response): Trouble | undefined {
  const { status } = response;
  if (status === 200 || status === 206) return undefined;
  if (transient.has(status)) {
    const after = retryAfterMs(response.headers.get("retry-after"));
    return { what: `HTTP ${status}`, ...(after !== undefined && { waitMs: after }) };
  }
  const fixes: Record<number, string> = {
    401: "set HF_TOKEN to a token that may read it, or check the name",
    403: "accept the model's terms on its page, and set HF_TOKEN to a token that may read it",
    404: "check the name, the revision and the file",
  };
  const fix = fixes[status];
  throw new EspalierError({ where: url, expected: path, found: `HTTP ${status}`, ...(fix && { fix }) });
}

/** Seconds or a date, at most five minutes. */
function retryAfterMs(header: string | null): number | undefined {
  if (header === null) return undefined;
  const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? 1000 * Math.min(300, Math.max(0, seconds)) : undefined;
}

interface Receiving extends DownloadOptions {
  /** Bytes that are kept. */
  from: number;
  watch: ReturnType<typeof createWatch>;
}

async function receive(download: Download, response: Response, { from, watch, onBytes }: Receiving) {
  const stated = response.headers.get("content-length");
  const size = download.size ?? (stated === null ? undefined : from + Number(stated));
  const file = await open(partialName(download.path), from > 0 ? "r+" : "w").catch((cause) => {
    throw fileError(download.path, cause);
  });
  let at = from;
  try {
    for await (const chunk of response.body ?? []) {
      watch.alive();
      at += (await file.write(chunk, 0, chunk.byteLength, at)).bytesWritten;
      onBytes?.(at, size);
      if (size !== undefined && at > size) break;
    }
    await file.truncate(at);
    await file.sync();
  } finally {
    await file.close();
  }
  if (size !== undefined && at < size) return { what: `the connection ended after ${at} of ${size} bytes` };
  if (size !== undefined && at > size) await wrong(download, `more than ${size} bytes`);
  return undefined;
}

async function troubleOf(cause: unknown, signal: AbortSignal | undefined): Promise<Trouble> {
  signal?.throwIfAborted();
  if (cause instanceof EspalierError || isNodeError(cause, "ENOSPC")) throw cause;
  const reason = cause instanceof Error && cause.cause !== undefined ? cause.cause : cause;
  return { what: messageOf(reason) };
}

function gaveUp({ url, path }: Download, { what }: Trouble, attempts: number): EspalierError {
  return new EspalierError({
    where: url,
    expected: path,
    found: `${what} (attempts without progress: ${attempts})`,
    fix: "run the same command again: what is there already is kept",
  });
}

async function verify(download: Download): Promise<void> {
  const { digest } = download;
  const partial = partialName(download.path);
  if (download.size !== undefined && (await sizeOf(partial)) !== download.size) {
    await wrong(download, `${await sizeOf(partial)} bytes`);
  }
  if (!digest) return;
  const hash = createHash(digest.kind === "sha256" ? "sha256" : "sha1");
  if (digest.kind === "git-sha1") hash.update(`blob ${await sizeOf(partial)}\0`);
  for await (const chunk of createReadStream(partial)) hash.update(chunk);
  const found = hash.digest("hex");
  if (found !== digest.value) await wrong(download, `${digest.kind} ${found}`);
}

/** The file is not what it should be: nothing of it is kept. */
async function wrong({ url, path, size, digest }: Download, found: string): Promise<never> {
  await rm(partialName(path), { force: true });
  const expected = digest ? `${digest.kind} ${digest.value}` : `${size} bytes`;
  throw new EspalierError({ where: url, expected, found, fix: "what was fetched is removed; try again" });
}

async function sizeOf(path: string): Promise<number> {
  const info = await stat(path).catch(() => undefined);
  return info?.size ?? 0;
}

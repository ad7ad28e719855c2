/**
 * @module Fetches a model into the cache that Python's tools share: `blobs/DIGEST`, `snapshots/COMMIT/PATH` as links to
 * them, `refs/REVISION` with the commit. What is there already is not fetched again.
 */
import { copyFile, mkdir, rm, stat, symlink } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  claimLock,
  EspalierError,
  fileExists,
  formatBytes,
  freeDiskBytes,
  ignoreEvents,
  type OnEvent,
  writeFileAtomic,
} from "../base/index.js";
import { chooseFiles } from "./choose.js";
import {
  type HubOptions,
  hubCacheDirectory,
  hubEndpoint,
  hubHeaders,
  openRepository,
  type RemoteFile,
  type RemoteRepository,
  repositoryFolder,
} from "./client.js";
import { type DownloadOptions, downloadFile, partialName } from "./download.js";
import type { HubName } from "./names.js";

export interface PullOptions extends HubOptions, Pick<DownloadOptions, "attempts" | "stallMs" | "pause"> {
  /** Defaults to the Hugging Face cache. */
  cache?: string;
  /** Files that are fetched at once. Defaults to 4. */
  parallel?: number;
  onEvent?: OnEvent;
}

export interface Pulled {
  repository: string;
  commit: string;
  /** The snapshot's directory, or the one GGUF in it: what other commands take. */
  path: string;
  files: { path: string; size: number }[];
  /** Bytes of these files, and how many of them were fetched now. */
  bytes: number;
  fetchedBytes: number;
}

export async function pull(name: HubName, options: PullOptions = {}): Promise<Pulled> {
  const { cache = hubCacheDirectory(), onEvent = ignoreEvents } = options;
  const remote = await openRepository(name.repository, name.revision, options);
  const files = chooseFiles(remote.files, name);
  const root = join(cache, repositoryFolder(name.repository));
  const progress = createTally(files, `pull ${name.repository}`, onEvent);
  await requireDisk(cache, root, files);
  const work = { remote, root, options, progress };
  await inParallel(files, options.parallel ?? 4, (file) => fetchInto(work, file));
  const snapshot = join(root, "snapshots", remote.commit);
  for (const file of files) await link(root, snapshot, file);
  if (name.revision !== remote.commit) await writeRef(root, name.revision, remote.commit);
  const ggufs = files.filter(({ path }) => path.endsWith(".gguf"));
  return {
    repository: name.repository,
    commit: remote.commit,
    path: ggufs.length > 0 ? join(snapshot, ggufs[0]!.path) : snapshot,
    files: files.map(({ path, size }) => ({ path, size })),
    bytes: files.reduce((sum, { size }) => sum + size, 0),
    fetchedBytes: progress.fetched(),
  };
}

interface Work {
  remote: RemoteRepository;
  root: string;
  options: PullOptions;
  progress: ReturnType<typeof createTally>;
}

const blobPath = (root: string, { digest }: RemoteFile) => join(root, "blobs", digest.value);

/** One of several processes fetches a blob; the others wait for it and take over if it dies. */
async function fetchInto({ remote, root, options, progress }: Work, file: RemoteFile): Promise<void> {
  const path = blobPath(root, file);
  const { signal } = options;
  const before = await sizeOf(path);
  if (before === file.size && file.size > 0) return progress.set(file, file.size, true);
  const release = await claim(path, options, async () => progress.set(file, await sizeOf(partialName(path)), true));
  try {
    const url = `${hubEndpoint(options)}/${remote.repository}/resolve/${remote.commit}/${encodeURI(file.path)}`;
    const request = { url, path, size: file.size, digest: file.digest, headers: hubHeaders(options) };
    progress.set(file, Math.max(await sizeOf(partialName(path)), await sizeOf(path)), true);
    await downloadFile(request, { ...options, ...(signal && { signal }), onBytes: (done) => progress.set(file, done) });
    progress.set(file, file.size);
  } finally {
    await release();
  }
}

/** A lock beside the blob, with the number of its process. */
async function claim(
  path: string,
  { signal, onEvent }: PullOptions,
  waiting: () => Promise<void>,
): Promise<() => Promise<void>> {
  const lock = `${path}.lock`;
  await mkdir(dirname(path), { recursive: true });
  for (let told = false; ; ) {
    signal?.throwIfAborted();
    const claimed = await claimLock(lock);
    if ("release" in claimed) return claimed.release;
    if (!told) {
      const message = `process ${claimed.owner} is fetching this already; joined`;
      onEvent?.({ event: "notice", level: "info", message });
    }
    told = true;
    await waiting();
    await sleep(100, undefined, signal ? { signal } : {});
  }
}

/** Adds up what is there of all files, and what of it came now. */
function createTally(files: readonly RemoteFile[], stage: string, onEvent: OnEvent) {
  const total = files.reduce((sum, { size }) => sum + size, 0);
  const done = new Map<string, number>();
  const found = new Map<string, number>();
  const sum = (map: ReadonlyMap<string, number>) => [...map.values()].reduce((a, b) => a + b, 0);
  return {
    set({ path }: RemoteFile, bytes: number, already = false): void {
      if (already) found.set(path, bytes);
      done.set(path, bytes);
      onEvent({ event: "progress", stage, done: sum(done), total, unit: "bytes" });
    },
    fetched: () => sum(done) - sum(found),
  };
}

async function requireDisk(cache: string, root: string, files: readonly RemoteFile[]): Promise<void> {
  await mkdir(cache, { recursive: true });
  const sizes = await Promise.all(
    files.map(
      async (file) =>
        file.size - Math.max(await sizeOf(blobPath(root, file)), await sizeOf(partialName(blobPath(root, file)))),
    ),
  );
  const needed = sizes.reduce((a, b) => a + Math.max(0, b), 0);
  const free = await freeDiskBytes(cache);
  if (needed <= free) return;
  throw new EspalierError({
    where: cache,
    expected: `${formatBytes(needed)} of free disk`,
    found: formatBytes(free),
    fix: "free some (`espalier rm`), or name another cache with HF_HUB_CACHE",
  });
}

/** A link to the blob, relative as Python's tools make it. */
async function link(root: string, snapshot: string, file: RemoteFile): Promise<void> {
  const place = join(snapshot, file.path);
  if (await fileExists(place)) return;
  await mkdir(dirname(place), { recursive: true });
  await rm(place, { force: true });
  const blob = blobPath(root, file);
  // Windows lets few make links.
  await symlink(relative(dirname(place), blob), place).catch(() => copyFile(blob, place));
}

async function writeRef(root: string, revision: string, commit: string): Promise<void> {
  await writeFileAtomic(join(root, "refs", revision), commit);
}

async function inParallel<Item>(
  items: readonly Item[],
  workers: number,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const queue = [...items];
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(workers, items.length) }, worker));
}

async function sizeOf(path: string): Promise<number> {
  const info = await stat(path).catch(() => undefined);
  return info?.size ?? 0;
}

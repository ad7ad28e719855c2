import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import {
  claimLock,
  createRssMeter,
  digestJson,
  EspalierError,
  fileError,
  fileExists,
  hashFile,
  isNodeError,
  type OnEvent,
  readJson,
  writeJsonAtomic,
} from "../base/index.js";

/** A finished stage: a directory that will not change again. */
export interface Artifact {
  stage: string;
  directory: string;
  /** Digest of the names and contents of its files: what later stages depend on. */
  digest: string;
  seconds: number;
  peakRssBytes: number;
  cached: boolean;
}

export interface StageRequest {
  stage: string;
  title?: string;
  /** Raised when the stage's code changes what it writes. */
  version: number;
  /** Everything besides the inputs that the result depends on; JSON. */
  options: unknown;
  /** Artifacts, or digests of outside files, by name. */
  inputs: Record<string, Artifact | string>;
  /**
   * Writes files into `directory`, each under its own name only when whole. A run that was killed is called again
   * with the same directory, so what is already there can be kept.
   */
  run(directory: string): Promise<void>;
}

export interface StoreContext {
  onEvent: OnEvent;
  signal: AbortSignal;
}

interface Manifest {
  stage: string;
  version: number;
  options: unknown;
  inputs: Record<string, string>;
  files: Record<string, string>;
}

interface Cost {
  seconds: number;
  peakRssBytes: number;
}

/** Results of stages by the content of what they were made from. */
export interface Store {
  root: string;
  produce(request: StageRequest, context: StoreContext): Promise<Artifact>;
}

/**
 * The manifest is written last: a directory with one is whole. The cost of a stage (seconds, memory) lies beside the
 * files and is no part of the digest.
 */
export function openStore(root: string): Store {
  return { root, produce: (request, context) => produce(root, request, context) };
}

/** Whether the stage's result is there already. */
export async function isStored({ root }: Store, request: Omit<StageRequest, "run">): Promise<boolean> {
  return fileExists(join(root, "artifacts", locate(request).name, manifestFile));
}

/** The directory's name, and digests of the inputs. */
function locate({ stage, version, options, ...request }: Omit<StageRequest, "run">) {
  const inputs = Object.fromEntries(
    Object.entries(request.inputs).map(([name, input]) => [name, typeof input === "string" ? input : input.digest]),
  );
  const key = digestJson({ stage, version, options, inputs }).slice(0, 24);
  return { inputs, name: `${stage.replaceAll("/", "-")}-${key}` };
}

async function produce(root: string, request: StageRequest, { onEvent, signal }: StoreContext): Promise<Artifact> {
  signal.throwIfAborted();
  const { stage, version, options } = request;
  const { inputs, name } = locate(request);
  const directory = join(root, "artifacts", name);
  onEvent({ event: "stage-start", stage, ...(request.title && { title: request.title }) });
  const found = await readArtifact(stage, directory);
  if (found) {
    onEvent({ event: "stage-end", stage, seconds: found.seconds, cached: true, peakRssBytes: found.peakRssBytes });
    return found;
  }
  const work = join(root, "work", name);
  const release = await claim(work);
  try {
    const cost = await measured(work, () => request.run(work));
    const files = await hashFiles(work);
    await writeJsonAtomic(join(work, costFile), cost);
    await writeJsonAtomic(join(work, manifestFile), { stage, version, options, inputs, files } satisfies Manifest);
    await mkdir(join(root, "artifacts"), { recursive: true });
    await rename(work, directory);
    onEvent({ event: "stage-end", stage, cached: false, ...cost });
    return { stage, directory, digest: digestJson(files), cached: false, ...cost };
  } catch (cause) {
    throw isNodeError(cause, "ENOSPC") ? fileError(work, cause) : cause;
  } finally {
    await release();
  }
}

const manifestFile = "manifest.json";
const costFile = "cost.json";

async function readArtifact(stage: string, directory: string): Promise<Artifact | undefined> {
  if (!(await fileExists(join(directory, manifestFile)))) return undefined;
  const manifest = (await readJson(join(directory, manifestFile))) as Manifest;
  const cost = (await readJson(join(directory, costFile))) as Cost;
  for (const name of Object.keys(manifest.files)) {
    if (await fileExists(join(directory, name))) continue;
    throw new EspalierError({
      where: join(directory, name),
      found: "a file of a finished stage is gone",
      fix: "run `espalier clean --all`, then the same command again",
    });
  }
  return { stage, directory, digest: digestJson(manifest.files), cached: true, ...cost };
}

/** Adds to what an earlier, interrupted run of the same stage has already cost. */
async function measured(work: string, run: () => Promise<void>): Promise<Cost> {
  const path = join(work, "..", `${work.split(sep).at(-1)}.cost.json`);
  const before = (await fileExists(path)) ? ((await readJson(path)) as Cost) : { seconds: 0, peakRssBytes: 0 };
  const meter = createRssMeter();
  const started = performance.now();
  const cost = () => ({
    seconds: before.seconds + (performance.now() - started) / 1000,
    peakRssBytes: Math.max(before.peakRssBytes, meter.peakBytes()),
  });
  try {
    await run();
    await rm(path, { force: true });
    return cost();
  } catch (error) {
    await writeJsonAtomic(path, cost()).catch(() => {});
    throw error;
  } finally {
    meter.stop();
  }
}

/** Takes the work directory for this process; one whose owner has died is taken over, its half-written files removed. */
async function claim(work: string): Promise<() => Promise<void>> {
  const lock = `${work}.lock`;
  await mkdir(work, { recursive: true }).catch((cause) => {
    throw fileError(work, cause);
  });
  const claimed = await claimLock(lock, { isOurs: false });
  if ("owner" in claimed) {
    throw new EspalierError({
      where: work,
      found: `process ${claimed.owner} at work on the same stage`,
      fix: "wait for it, or stop it and run the same command again",
    });
  }
  // A model is written as a directory, which gets its name when it is whole.
  const entries = await readdir(work, { recursive: true });
  for (const entry of entries) {
    if (entry.endsWith(".tmp") || entry === manifestFile || entry === costFile)
      await rm(join(work, entry), { recursive: true, force: true });
  }
  return claimed.release;
}

async function hashFiles(directory: string): Promise<Record<string, string>> {
  const hashes: Record<string, string> = {};
  for (const name of await listFiles(directory)) hashes[name] = await hashFile(join(directory, name));
  return hashes;
}

/** Relative names of all files below a directory, sorted; links to files, as the cache of the hub has them, are among them. */
export async function listFiles(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch((cause) => {
    if (isNodeError(cause, "ENOENT")) return [];
    throw fileError(directory, cause);
  });
  const paths = await Promise.all(
    entries.map(async (entry) => {
      const path = join(entry.parentPath, entry.name);
      const isFile = entry.isSymbolicLink() ? (await stat(path)).isFile() : entry.isFile();
      return isFile ? [relative(directory, path).split(sep).join("/")] : [];
    }),
  );
  return paths.flat().sort();
}

export interface StoreEntry {
  name: string;
  finished: boolean;
  bytes: number;
}

/** What the store holds, finished and interrupted. */
export async function listStore(root: string): Promise<StoreEntry[]> {
  const entries: StoreEntry[] = [];
  for (const [part, finished] of [
    ["artifacts", true],
    ["work", false],
  ] as const) {
    for (const entry of await readdir(join(root, part), { withFileTypes: true }).catch(() => [])) {
      if (!entry.isDirectory()) continue;
      entries.push({ name: entry.name, finished, bytes: await directoryBytes(join(root, part, entry.name)) });
    }
  }
  return entries.sort((a, b) => b.bytes - a.bytes || (a.name < b.name ? -1 : 1));
}

async function directoryBytes(directory: string): Promise<number> {
  let bytes = 0;
  for (const name of await listFiles(directory)) bytes += (await stat(join(directory, name))).size;
  return bytes;
}

export async function removeFromStore(root: string, entry: StoreEntry): Promise<void> {
  await rm(join(root, entry.finished ? "artifacts" : "work", entry.name), { recursive: true, force: true });
}

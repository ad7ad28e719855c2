/** @module What the cache holds, and taking it out again: a snapshot's blobs go when no other snapshot has them. */
import { lstat, readdir, readFile, realpath, rm, stat } from "node:fs/promises";
import { join, relative } from "node:path";
import { EspalierError, fileExists } from "../base/index.js";
import { hubCacheDirectory, repositoryFolder } from "./client.js";

/** A revision of a repository in the cache. */
export interface CachedSnapshot {
  repository: string;
  commit: string;
  /** Branches and tags that stand for it here. */
  refs: string[];
  /** Directory of the snapshot. */
  path: string;
  /** Paths in it with their bytes, only of files that are whole. */
  files: { path: string; size: number }[];
  bytes: number;
}

/** Every snapshot, by repository and commit. */
export async function listCache(cache = hubCacheDirectory()): Promise<CachedSnapshot[]> {
  const folders = (await names(cache)).filter((name) => /^models--[^-].*--/.test(name)).sort();
  const found = await Promise.all(folders.map((folder) => snapshotsOf(join(cache, folder), folder)));
  return found.flat();
}

async function snapshotsOf(root: string, folder: string): Promise<CachedSnapshot[]> {
  const repository = folder.slice("models--".length).replace("--", "/");
  const refs = await refsOf(join(root, "refs"));
  const commits = (await names(join(root, "snapshots"))).sort();
  return Promise.all(
    commits.map(async (commit) => {
      const path = join(root, "snapshots", commit);
      const files = await filesBelow(path);
      const bytes = files.reduce((sum, { size }) => sum + size, 0);
      return {
        repository,
        commit,
        refs: refs.filter((ref) => ref.commit === commit).map(({ name }) => name),
        path,
        files,
        bytes,
      };
    }),
  );
}

async function refsOf(directory: string): Promise<{ name: string; commit: string }[]> {
  const found: { name: string; commit: string }[] = [];
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => [])) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile()) found.push({ name: relative(directory, path), commit: (await readFile(path, "utf8")).trim() });
  }
  return found.sort((a, b) => (a.name < b.name ? -1 : 1));
}

async function filesBelow(directory: string): Promise<{ path: string; size: number }[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => []);
  const files = await Promise.all(
    entries.map(async (entry) => {
      const path = join(entry.parentPath, entry.name);
      const info = await stat(path).catch(() => undefined);
      return info?.isFile() ? [{ path: relative(directory, path), size: info.size }] : [];
    }),
  );
  return files.flat().sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Takes a repository out of the cache, or one commit of it. Returns the bytes that this frees. */
export async function removeFromCache(
  repository: string,
  { cache = hubCacheDirectory(), commit = "" } = {},
): Promise<number> {
  const root = join(cache, repositoryFolder(repository));
  const snapshots = await snapshotsOf(root, repositoryFolder(repository));
  const gone = snapshots.filter((snapshot) => snapshot.commit.startsWith(commit));
  if (gone.length === 0) {
    throw new EspalierError({
      where: `hf:${repository}${commit && `@${commit}`}`,
      expected: `a model in ${cache}`,
      found: snapshots.length > 0 ? `commits ${snapshots.map((one) => one.commit).join(", ")}` : "none of that name",
      fix: "`espalier list` shows what is there",
      exitCode: 2,
    });
  }
  const before = await bytesBelow(root);
  if (gone.length === snapshots.length) {
    await rm(root, { recursive: true });
    return before;
  }
  for (const { path, refs } of gone) {
    await rm(path, { recursive: true });
    for (const ref of refs) await rm(join(root, "refs", ref), { force: true });
  }
  await dropUnused(root);
  return before - (await bytesBelow(root));
}

/** Removes blobs that no snapshot points to. Partial ones stay: another process may be fetching them. */
async function dropUnused(root: string): Promise<void> {
  const used = new Set<string>();
  const links = await readdir(join(root, "snapshots"), { recursive: true, withFileTypes: true });
  for (const entry of links) {
    if (entry.isSymbolicLink()) used.add(await realpath(join(entry.parentPath, entry.name)).catch(() => ""));
  }
  for (const name of await names(join(root, "blobs"))) {
    const path = await realpath(join(root, "blobs", name));
    if (/^[0-9a-f]+$/.test(name) && !used.has(path)) await rm(path);
  }
}

async function bytesBelow(directory: string): Promise<number> {
  let bytes = 0;
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => [])) {
    if (entry.isFile()) bytes += (await lstat(join(entry.parentPath, entry.name))).size;
  }
  return bytes;
}

async function names(directory: string): Promise<string[]> {
  return (await fileExists(directory)) ? readdir(directory) : [];
}

import { copyFile, link, mkdir, readdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { EspalierError, fileError, fileExists, isNodeError, temporaryName, writeJsonAtomic } from "../base/index.js";
import { listFiles } from "./store.js";

const marker = "recipe.json";

/** @throws EspalierError unless the directory is new, empty, or one that an earlier run of Espalier made */
export async function checkOutput(directory: string): Promise<void> {
  const entries: string[] = await readdir(directory).catch((cause) => {
    if (isNodeError(cause, "ENOENT")) return [];
    throw fileError(directory, cause);
  });
  if (entries.length === 0 || entries.includes(marker)) return;
  throw new EspalierError({
    where: directory,
    expected: "a new directory, or one that an earlier run wrote",
    found: `a directory with other files (${entries.slice(0, 3).join(", ")})`,
    fix: "choose another --out",
    exitCode: 2,
  });
}

/** Makes the output directory ours; once nothing is left that could refuse the run. */
export async function markOutput(directory: string, recipe: unknown): Promise<void> {
  await writeJsonAtomic(join(directory, marker), recipe);
}

/** Weights share the store's blocks; what people edit (a card, a configuration) is copied, so that the store stays whole. */
const shared = /\.(safetensors|gguf)$/;

/**
 * Puts the files of a finished stage below the output directory, sharing their blocks where the file system can. What
 * an earlier run with another result left under one of `roots` would be taken for a part of this one, and goes.
 */
export async function publishDirectory(from: string, to: string, roots: readonly string[]): Promise<void> {
  const names = (await listFiles(from)).filter((name) => roots.includes(rootOf(name)));
  for (const name of names) await publishFile(join(from, name), join(to, name));
  const stale = (await listFiles(to)).filter((name) => roots.includes(rootOf(name)) && !names.includes(name));
  for (const name of stale) await rm(join(to, name));
}

/** The first part of a name: `child/config.json` -> `child`. */
function rootOf(name: string): string {
  return name.split("/")[0]!;
}

export async function publishFile(from: string, to: string): Promise<void> {
  const temporary = temporaryName(to);
  try {
    await mkdir(dirname(to), { recursive: true });
    await rm(temporary, { force: true });
    if (shared.test(from)) await link(from, temporary).catch(() => copyFile(from, temporary));
    else await copyFile(from, temporary);
    // Renaming one name of a file over another name of the same file does nothing, so the old one goes first.
    if (await fileExists(to)) await rm(to);
    await rename(temporary, to);
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => {});
    throw fileError(to, cause);
  }
}

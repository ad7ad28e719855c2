/** @module The `.gguf` file that runs for a model: itself, the one in a directory, or one that is written for now. */
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { EspalierError, fileExists, type OnEvent } from "../base/index.js";

export interface Runnables {
  /** @throws EspalierError where the model is not there, or has several files to choose from */
  ggufOf(model: string): Promise<string>;
  /** Removes the files that were written for now. */
  dispose(): Promise<void>;
}

export function createRunnables(onEvent: OnEvent): Runnables {
  const written: string[] = [];
  return {
    async ggufOf(model) {
      const { cachedPath } = await import("../hub/index.js");
      const path = await cachedPath(model);
      if (!(await fileExists(path))) throw notThere(model);
      if (!(await stat(path)).isDirectory()) return path;
      const ggufs = (await readdir(path)).filter((name) => name.endsWith(".gguf")).sort();
      if (ggufs.length === 1) return join(path, ggufs[0]!);
      if (ggufs.length > 1) throw several(path, ggufs);
      const directory = await mkdtemp(join(tmpdir(), "espalier-"));
      written.push(directory);
      return convert(path, join(directory, `${basename(path)}.gguf`), onEvent);
    },
    async dispose() {
      for (const directory of written.splice(0)) await rm(directory, { recursive: true, force: true });
    },
  };
}

async function convert(path: string, gguf: string, onEvent: OnEvent): Promise<string> {
  const { openModel, writeGguf } = await import("../models/index.js");
  const model = await openModel(path);
  try {
    const message = `${path}: written as F16 GGUF for now; \`espalier export\` makes one that stays`;
    onEvent({ event: "notice", level: "info", message });
    await writeGguf(model, gguf, { type: "f16", onEvent });
    return gguf;
  } finally {
    await model.close();
  }
}

function notThere(model: string): EspalierError {
  return new EspalierError({
    where: model,
    expected: "a .gguf file, a model's directory, or hf:owner/name of the cache",
    found: "nothing of that name",
    fix: "`espalier list` shows the cache, `espalier pull` fetches",
    exitCode: 2,
  });
}

function several(path: string, ggufs: readonly string[]): EspalierError {
  return new EspalierError({
    where: path,
    expected: "one .gguf file",
    found: ggufs.join(", "),
    fix: `name one, such as ${join(path, ggufs[0]!)}`,
    exitCode: 2,
  });
}

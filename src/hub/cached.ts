import { join } from "node:path";
import { EspalierError } from "../base/index.js";
import { chooseFiles } from "./choose.js";
import { hubCacheDirectory } from "./client.js";
import { listCache } from "./listing.js";
import { parseModelName } from "./names.js";

/**
 * Where a model of the cache lies: `hf:owner/name` becomes the snapshot's directory, `hf:owner/name:Q4_K_M` the file in it.
 * Any other path is given back. Nothing is fetched.
 *
 * @throws EspalierError when it is not there, with the command that fetches it
 */
export async function cachedPath(model: string, { cache = hubCacheDirectory() } = {}): Promise<string> {
  if (!model.startsWith("hf:")) return model;
  const name = parseModelName(model);
  if (name.kind !== "hub") return model;
  const { repository, revision } = name;
  const snapshots = (await listCache(cache)).filter((snapshot) => snapshot.repository === repository);
  const found = snapshots.find(({ refs, commit }) => refs.includes(revision) || commit.startsWith(revision));
  if (!found) {
    throw new EspalierError({
      where: model,
      expected: `a model in ${cache}`,
      found: "it is not there",
      fix: `espalier pull ${model}`,
      exitCode: 2,
    });
  }
  const [first, ...rest] = chooseFiles(found.files, name);
  const single = name.file !== undefined || rest.length === 0 || first!.path.endsWith(".gguf");
  return single ? join(found.path, first!.path) : found.path;
}

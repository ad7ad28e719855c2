import { isAbsolute, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { fileExists } from "../base/index.js";
import { cachedPath } from "../hub/index.js";
import type { Recipe } from "./recipe.js";

/**
 * Where a file lies that may come with the package, such as `recipes/start.json` or `models/stories260K`: in the
 * working directory, else in the package; `hf:owner/name` in the cache of the hub. A path that is in none stays as it is, for
 * a message that names it.
 */
export async function locate(path: string): Promise<string> {
  if (path.startsWith("hf:")) return cachedPath(path);
  if (isAbsolute(path) || (await fileExists(path))) return path;
  const bundled = fileURLToPath(new URL(`../../${path}`, import.meta.url));
  return (await fileExists(bundled)) ? relative(process.cwd(), bundled) : path;
}

/** The recipe with the files that it reads located. What it writes stays below the working directory. */
export async function locateInputs(recipe: Recipe): Promise<Recipe> {
  const { train, evaluate } = recipe.text;
  return {
    ...recipe,
    parent: await locate(recipe.parent),
    text: {
      ...recipe.text,
      ...(train && { train: await Promise.all(train.map(locate)) }),
      ...(evaluate && { evaluate: await Promise.all(evaluate.map(locate)) }),
    },
  };
}

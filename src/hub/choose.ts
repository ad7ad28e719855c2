/** @module Which files of a repository are wanted: one, those of a quantisation, or what makes a model that can be loaded. */
import { EspalierError } from "../base/index.js";
import type { HubName } from "./names.js";

/** Files beside the weights that are read or have to travel with them. */
const beside =
  /^(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|chat_template)\.json$|^chat_template\.jinja$|^(vocab|merges)\.(json|txt)$|^tokenizer\.model$|^(licen[cs]e|notice|readme|use_policy)(\..*)?$|\.safetensors\.index\.json$/i;

/**
 * The file that was named; the GGUF of the type that was named, with its other parts; or, of a whole repository, the
 * safetensors with what lies beside them. A repository of GGUFs alone needs a type, unless it has one file only.
 */
export function chooseFiles<File extends { path: string }>(
  files: readonly File[],
  { repository, file, quant }: HubName,
): File[] {
  if (file !== undefined) return [namedFile(repository, files, file)];
  const ggufs = files.filter(({ path }) => path.toLowerCase().endsWith(".gguf"));
  if (quant !== undefined) return ofQuant(repository, ggufs, quant);
  const weights = files.filter(({ path }) => /^[^/]*\.safetensors$/.test(path));
  if (weights.length > 0) return [...files.filter(({ path }) => beside.test(path)), ...weights];
  if (ggufs.length === 1) return ggufs;
  const types = [...new Set(ggufs.map(({ path }) => typeOf(path)))];
  throw new EspalierError({
    where: `hf:${repository}`,
    expected: "safetensors, or one GGUF",
    found: ggufs.length > 0 ? `${ggufs.length} GGUFs: ${types.join(", ")}` : "neither",
    fix:
      ggufs.length > 0
        ? `name one: hf:${repository}:${types.includes("Q4_K_M") ? "Q4_K_M" : types[0]}`
        : "this is no model that can be loaded here",
    exitCode: 2,
  });
}

function namedFile<File extends { path: string }>(repository: string, files: readonly File[], path: string): File {
  const found = files.find((file) => file.path === path);
  if (found) return found;
  throw new EspalierError({
    where: `hf:${repository}`,
    expected: path,
    found: `no such file among ${files.length}`,
    fix: `it has ${files
      .slice(0, 12)
      .map((file) => file.path)
      .join(", ")}${files.length > 12 ? " and others" : ""}`,
    exitCode: 2,
  });
}

/** One file, or all parts of one that is split. */
function ofQuant<File extends { path: string }>(repository: string, ggufs: readonly File[], quant: string): File[] {
  const found = ggufs.filter(({ path }) => typeOf(path) === quant);
  if (found.length > 0) return found;
  const types = [...new Set(ggufs.map(({ path }) => typeOf(path)))];
  throw new EspalierError({
    where: `hf:${repository}`,
    expected: `a GGUF of type ${quant}`,
    found: types.length > 0 ? types.join(", ") : "no GGUF at all",
    fix: types.length > 0 ? "name one of these" : "leave the type out",
    exitCode: 2,
  });
}

const typePattern = /(?:^|[-._/])((?:IQ|Q|TQ)\d[A-Z0-9_]*|F16|BF16|F32|FP16|MXFP4)(?=[-./]|$)/gi;

/** The last word of a file's name that is a type: `model-Q4_K_M-00001-of-00002.gguf` is Q4_K_M. */
function typeOf(path: string): string {
  const found = [...path.replace(/\.gguf$/i, "").matchAll(typePattern)].at(-1)?.[1];
  return found?.toUpperCase() ?? "unknown";
}

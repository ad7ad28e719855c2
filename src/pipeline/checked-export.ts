/**
 * @module Exports that are compared with the model they were written from before they get their name: a file that is there
 * has passed.
 */
import { rename, rm } from "node:fs/promises";
import { checkFree, EspalierError, fileError, ignoreEvents, type OnEvent, temporaryName } from "../base/index.js";
import { documentMark, readDocuments } from "../data/index.js";
import { createEngine } from "../engine/index.js";
import { createLlamaCpp } from "../llamacpp/index.js";
import { type Model, openModel, type SavedModel, writeGguf, writeHub } from "../models/index.js";
import { createRuntime } from "../runtime/index.js";
import { loadTokenizer } from "../tokenizer/index.js";
import { compareModels, type Verified, verifyGguf } from "./verify.js";

export interface CheckedExportOptions {
  format: "gguf" | "hf";
  type: "f32" | "f16" | "bf16" | "q8_0";
  /** The file (gguf) or directory (hf); must not exist yet. */
  out: string;
  /** Text whose logits are compared. Without it nothing is compared. */
  check?: string;
  /** Model card of a directory. */
  card?: string;
  device?: string;
  threads?: number;
  onEvent?: OnEvent;
  signal?: AbortSignal;
}

export type CheckedExport = SavedModel & Partial<Verified>;

/**
 * Writes a model under a temporary name, loads it again (a GGUF in llama.cpp, a directory with our own reader), compares
 * its logits with the model's own, and gives it its name.
 * @throws EspalierError when the path is taken, or the logits differ by more than the type allows: nothing is left then
 */
export async function exportChecked(model: Model, options: CheckedExportOptions): Promise<CheckedExport> {
  const { out, check } = options;
  await checkFree(out);
  const unchecked = temporaryName(out);
  try {
    const saved = await write(model, unchecked, options);
    const verified = check === undefined ? {} : await compare(model, unchecked, check, options);
    options.signal?.throwIfAborted();
    await rename(unchecked, out).catch((cause) => {
      throw fileError(out, cause);
    });
    return { ...saved, ...verified, path: out };
  } finally {
    await rm(unchecked, { recursive: true, force: true }).catch(() => {});
  }
}

async function write(model: Model, path: string, options: CheckedExportOptions): Promise<SavedModel> {
  const { format, type, card, onEvent = ignoreEvents, signal } = options;
  const watching = { onEvent, ...(signal && { signal }) };
  if (format === "gguf") return writeGguf(model, path, { type, ...watching });
  if (type !== "q8_0") return writeHub(model, path, { type, ...(card !== undefined && { card }), ...watching });
  throw new EspalierError({
    where: "--type q8_0",
    expected: "f32, f16 or bf16 with --format hf",
    found: "a GGUF type",
    fix: "add --format gguf, or choose another type",
    exitCode: 2,
  });
}

async function compare(model: Model, path: string, text: string, options: CheckedExportOptions): Promise<Verified> {
  const { format, type, device = "cpu", threads, signal, out } = options;
  const threading = threads === undefined ? {} : { threads };
  const sequences = await checkSequences(model, text);
  const runtime = await createRuntime({ device, ...threading });
  const engine = createEngine(runtime, model);
  try {
    if (format === "gguf") {
      const llama = createLlamaCpp(threading);
      const compared = { llama, path, type, engine, sequences, where: out, ...(signal && { signal }) };
      return await verifyGguf(compared).finally(() => llama.dispose());
    }
    const reloaded = await openModel(path);
    const compared = compareModels(createEngine(runtime, reloaded), engine, sequences, { where: out, type });
    return await compared.finally(() => reloaded.close());
  } finally {
    await runtime.dispose();
  }
}

const stretches = 2;
const longest = 256;
const shortest = 8;

/** The beginning of the text's first document that is long enough. */
async function checkSequences({ config, sidecars, path }: Model, text: string): Promise<Int32Array[]> {
  const tokenizer = loadTokenizer(sidecars.tokenizer, path);
  const mark = documentMark(tokenizer);
  const sequences: Int32Array[] = [];
  let longestFound = 0;
  for (const document of await readDocuments(text)) {
    const own = tokenizer.encode(document, { addSpecial: false, parseSpecial: false });
    const ids = (mark === undefined ? own : [mark, ...own]).slice(0, Math.min(longest, config.maxPositions));
    longestFound = Math.max(longestFound, ids.length);
    if (ids.length >= Math.min(shortest, config.maxPositions)) sequences.push(Int32Array.from(ids));
    if (sequences.length === stretches) return sequences;
  }
  if (sequences.length > 0) return sequences;
  throw new EspalierError({
    where: text,
    expected: `a text of at least ${shortest} tokens to compare logits on`,
    found: `${longestFound}`,
    fix: "name a longer one with --check, or leave the check out with --no-check",
  });
}

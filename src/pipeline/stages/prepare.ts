import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { hashFile, readJson, writeFileAtomic, writeJsonAtomic } from "../../base/index.js";
import {
  bundledTextPath,
  type Packing,
  readDocuments,
  type Sequences,
  sequenceAt,
  splitText,
} from "../../data/index.js";
import type { RunContext } from "../context.js";
import type { Recipe } from "../recipe.js";
import type { Artifact } from "../store.js";

/** What the texts of a run are for. No two share a document. */
export const parts = ["calibrate", "score", "distil", "evaluate"] as const;
export type Part = (typeof parts)[number];

export interface Prepared {
  artifact: Artifact;
  sequences: Record<Part, Sequences>;
  /** Where the training text and the measuring text come from, as the report says it. */
  origin: { train: string; evaluate: string };
}

/** Tokenises the texts and deals their documents out. */
export async function prepare(context: RunContext): Promise<Prepared> {
  const { recipe, store, parentDigest } = context;
  const { text, length, seed, calibrate, score, evaluate } = recipe;
  const train = text.train ?? bundledTextPath("train");
  const measured = text.evaluate ?? (text.train === undefined ? bundledTextPath("valid") : undefined);
  const artifact = await store.produce(
    {
      stage: "prepare",
      title: "tokenise the text and deal it out",
      version: 1,
      options: {
        length,
        seed,
        packing: packingOf(recipe),
        calibrate: calibrate.tokens,
        score: score.tokens,
        evaluate: evaluate.tokens,
      },
      inputs: {
        parent: parentDigest,
        train: await hashFile(train),
        ...(measured !== undefined && { evaluate: await hashFile(measured) }),
      },
      run: (directory) => writeParts(directory, context, train, measured),
    },
    context,
  );
  return {
    artifact,
    sequences: await readParts(artifact.directory),
    origin: {
      train: text.train ?? "the bundled TinyStories sample (data/tinystories)",
      evaluate:
        text.evaluate ??
        (text.train === undefined ? "set-aside bundled TinyStories" : `set-aside part of ${text.train}`),
    },
  };
}

/** Stories are short and mean something from their beginning; other texts are cut as they come. */
function packingOf({ text }: Recipe): Packing {
  return text.packing ?? (text.train === undefined ? "document" : "packed");
}

async function writeParts(directory: string, context: RunContext, train: string, measured?: string): Promise<void> {
  const { recipe, tokenizer } = context;
  const { length, seed, calibrate, score, evaluate } = recipe;
  const count = (tokens: number) => Math.max(2, Math.round(tokens / length));
  const dealt = splitText(
    tokenizer,
    await readDocuments(train),
    [
      { name: "calibrate", sequences: count(calibrate.tokens) },
      { name: "score", sequences: count(score.tokens) },
      ...(measured === undefined ? [{ name: "evaluate", sequences: count(evaluate.tokens) } as const] : []),
      { name: "distil", sequences: "rest", least: recipe.distil.batch },
    ],
    { length, seed, packing: packingOf(recipe), where: train },
  ) as Record<Part, Sequences>;
  const all: Record<Part, Sequences> =
    measured === undefined
      ? dealt
      : { ...dealt, evaluate: await measuringText(context, measured, count(evaluate.tokens)) };
  for (const part of parts) await writeFileAtomic(join(directory, `${part}.i32`), bytesOf(all[part].ids));
  const facts = parts.map((part) => [part, { ...all[part], ids: undefined }] as const);
  await writeJsonAtomic(join(directory, "sequences.json"), Object.fromEntries(facts));
}

async function measuringText({ recipe, tokenizer }: RunContext, path: string, maxCount: number): Promise<Sequences> {
  const options = { length: recipe.length, seed: recipe.seed, packing: packingOf(recipe), where: path };
  const { evaluate } = splitText(
    tokenizer,
    await readDocuments(path),
    [{ name: "evaluate", sequences: "rest", least: 2 }],
    options,
  );
  return evaluate.count <= maxCount
    ? evaluate
    : { ...evaluate, count: maxCount, ids: evaluate.ids.slice(0, maxCount * recipe.length) };
}

async function readParts(directory: string): Promise<Record<Part, Sequences>> {
  const facts = (await readJson(join(directory, "sequences.json"))) as Record<Part, Omit<Sequences, "ids">>;
  const read = async (part: Part) => ({ ...facts[part], ids: idsOf(await readFile(join(directory, `${part}.i32`))) });
  return {
    calibrate: await read("calibrate"),
    score: await read("score"),
    distil: await read("distil"),
    evaluate: await read("evaluate"),
  };
}

function bytesOf(ids: Int32Array): Uint8Array {
  return new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength);
}

function idsOf(bytes: Uint8Array): Int32Array {
  return new Int32Array(bytes.slice().buffer);
}

/** One view for each sequence. */
export function rowsOf(sequences: Sequences): Int32Array[] {
  return Array.from({ length: sequences.count }, (_, i) => sequenceAt(sequences, i));
}

import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { digestJson, hashFile, readJson, writeFileAtomic, writeJsonAtomic } from "../../base/index.js";
import {
  type BundledText,
  bundledChatPath,
  bundledTextPath,
  interleaveSequences,
  type Packing,
  type PartRequest,
  type Sequences,
  sequenceAt,
  sliceSequences,
  splitText,
} from "../../data/index.js";
import type { BaseContext } from "../context.js";
import type { Recipe } from "../recipe.js";
import type { Artifact } from "../store.js";
import { noticeMissingChat, readSource } from "../texts.js";

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
export async function prepare(context: BaseContext): Promise<Prepared> {
  const { recipe, store, parent, parentDigest, onEvent } = context;
  const { length, seed, calibrate, score, evaluate } = recipe;
  const { train, measured } = textsOf(context);
  noticeMissingChat(parent, train, onEvent);
  const artifact = await store.produce(
    {
      stage: "prepare",
      title: "tokenise the text and deal it out",
      version: 2,
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
        train: digestJson(await Promise.all(train.map(hashFile))),
        ...(measured && { evaluate: digestJson(await Promise.all(measured.map(hashFile))) }),
      },
      run: (directory) => writeParts(directory, context, train, measured),
    },
    context,
  );
  const bundled = recipe.text.train === undefined;
  const bundledNames = train.length > 1 ? "TinyStories and GSM8K conversations" : "TinyStories";
  const named = train.map((path) => basename(path)).join(", ");
  return {
    artifact,
    sequences: await readParts(artifact.directory),
    origin: {
      train: bundled ? `the bundled ${bundledNames}` : named,
      evaluate: recipe.text.evaluate
        ? measured!.map((path) => basename(path)).join(", ")
        : bundled
          ? `set-aside bundled ${bundledNames}`
          : `set-aside parts of ${named}`,
    },
  };
}

interface Texts {
  train: string[];
  /** Texts for measuring; absent where they are set aside from the others. */
  measured?: string[];
}

/** The recipe's files, or the bundled ones: stories, and for a chat model conversations too. */
function textsOf({ recipe: { text }, parent }: BaseContext): Texts {
  const chat = parent.sidecars.chatTemplate !== undefined;
  const bundled = (part: BundledText) => [bundledTextPath(part), ...(chat ? [bundledChatPath(part)] : [])];
  if (text.evaluate) return { train: text.train ?? bundled("train"), measured: text.evaluate };
  return text.train ? { train: text.train } : { train: bundled("train"), measured: bundled("valid") };
}

/** Stories are short and mean something from their beginning; other texts are cut as they come. */
function packingOf({ text }: Recipe): Packing {
  return text.packing ?? (text.train === undefined ? "document" : "packed");
}

async function writeParts(
  directory: string,
  context: BaseContext,
  train: readonly string[],
  measured?: readonly string[],
): Promise<void> {
  const { recipe } = context;
  const count = (tokens: number) => Math.max(2, Math.round(tokens / recipe.length / train.length));
  const { calibrate, score, evaluate, distil } = recipe;
  const dealt = await dealOut(context, train, [
    { name: "calibrate", sequences: count(calibrate.tokens) },
    { name: "score", sequences: count(score.tokens) },
    ...(measured ? [] : [{ name: "evaluate", sequences: count(evaluate.tokens) } as const]),
    { name: "distil", sequences: "rest", least: distil.batch },
  ]);
  const all = measured
    ? { ...dealt, evaluate: await measuringText(context, measured, evaluate.tokens / recipe.length) }
    : dealt;
  for (const part of parts) await writeFileAtomic(join(directory, `${part}.i32`), bytesOf(all[part]!.ids));
  const facts = parts.map((part) => [part, { ...all[part], ids: undefined }] as const);
  await writeJsonAtomic(join(directory, "sequences.json"), Object.fromEntries(facts));
}

/** Every text gives to every part; sequences of the texts stand in turns. */
async function dealOut(
  { recipe, parent, tokenizer }: BaseContext,
  paths: readonly string[],
  requests: readonly PartRequest<Part>[],
): Promise<Record<Part, Sequences>> {
  const { length, seed } = recipe;
  const dealt: { kind: string; parts: Record<Part, Sequences> }[] = [];
  for (const path of paths) {
    const { kind, documents, chat } = await readSource(path, parent, tokenizer);
    // Conversations are often shorter than a sequence.
    const packing = chat ? "packed" : packingOf(recipe);
    dealt.push({
      kind,
      parts: splitText(tokenizer, documents, requests, { length, seed, packing, chat, where: path }),
    });
  }
  const merged = requests.map(({ name }) => {
    const sources = dealt.map(({ kind, parts }) => ({ kind, sequences: parts[name] }));
    return [name, sources.length === 1 ? sources[0]!.sequences : interleaveSequences(sources)] as const;
  });
  return Object.fromEntries(merged) as Record<Part, Sequences>;
}

async function measuringText(context: BaseContext, paths: readonly string[], sequences: number): Promise<Sequences> {
  const least = Math.max(2, Math.round(sequences));
  const { evaluate } = await dealOut(context, paths, [{ name: "evaluate", sequences: "rest", least: 2 }]);
  return sliceSequences(evaluate, 0, least);
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

/**
 * @module Documents become token sequences of one length. Parts of a text (for calibration, training, scoring,
 * measuring) never share a document, so that nothing measured on one has been seen in another.
 */
import { createRng, EspalierError, formatCount } from "../base/index.js";
import type { Tokenizer } from "../tokenizer/index.js";
import { END_OF_TEXT } from "./text.js";

/** Token sequences of equal length. */
export interface Sequences {
  /** Name of the part, for messages. */
  name: string;
  /** Tokens of a sequence. */
  length: number;
  count: number;
  /** `count * length` ids, one sequence after the other. */
  ids: Int32Array;
  /** Documents that went in. */
  documents: number;
  /** Documents shorter than a sequence that were left out (`document` packing only). */
  skipped: number;
  /** Of each sequence, the kind of text it is from; absent where all are of one. */
  kinds?: string[];
}

export type Packing =
  /** Documents one after the other, cut every `length` tokens; the last, incomplete sequence is dropped. */
  | "packed"
  /** The first `length` tokens of each document; shorter documents are left out. */
  | "document";

export interface WindowOptions {
  /** Tokens of a sequence. */
  length: number;
  /** Defaults to `packed`. */
  packing?: Packing;
  /** No more sequences than this. Defaults to all. */
  maxCount?: number;
  /** Name of the part, for messages. Defaults to `text`. */
  name?: string;
  /** Documents are rendered conversations: special tokens in them count as such, and they bring their own seams. */
  chat?: boolean;
}

/** Tokenises documents in their order; each begins with its mark (see `documentMark`). */
export function createSequences(
  tokenizer: Tokenizer,
  documents: readonly string[],
  { length, packing = "packed", maxCount = Number.POSITIVE_INFINITY, name = "text", chat = false }: WindowOptions,
): Sequences {
  checkLength(length);
  const rows: number[] = [];
  let [used, skipped, count] = [0, 0, 0];
  for (const document of documents) {
    if (count >= maxCount) break;
    const ids = encodeDocument(tokenizer, document, chat);
    used++;
    if (packing === "packed") append(rows, ids, ids.length);
    else if (ids.length >= length) append(rows, ids, length);
    else skipped++;
    count = Math.floor(rows.length / length);
  }
  count = Math.min(count, maxCount);
  return { name, length, count, ids: Int32Array.from(rows.slice(0, count * length)), documents: used, skipped };
}

function encodeDocument(tokenizer: Tokenizer, document: string, chat: boolean): number[] {
  if (chat) return tokenizer.encode(document, { addSpecial: false, parseSpecial: true });
  const ids = tokenizer.encode(document, { addSpecial: false, parseSpecial: false });
  const mark = documentMark(tokenizer);
  return mark === undefined ? ids : [mark, ...ids];
}

/**
 * What stands before every document, so that packed ones show their seams: the start token where the model was trained
 * with one, else the token that ended documents in training (a chat model's own end token ends turns).
 */
export function documentMark(tokenizer: Tokenizer): number | undefined {
  if (tokenizer.addBos) return tokenizer.bosTokenId;
  return tokenizer.tokenToId(END_OF_TEXT) ?? tokenizer.eosTokenIds[0] ?? tokenizer.bosTokenId;
}

/** `push(...ids)` overflows the stack on a long document. */
function append(rows: number[], ids: readonly number[], count: number): void {
  for (let i = 0; i < count; i++) rows.push(ids[i]!);
}

/** One sequence, a view into `ids`. */
export function sequenceAt({ ids, length, count, name }: Sequences, index: number): Int32Array {
  if (index < 0 || index >= count) throw new RangeError(`internal: sequence ${index} of ${count} in ${name}`);
  return ids.subarray(index * length, (index + 1) * length);
}

/** The sequences from `start` to before `end`, sharing memory. */
export function sliceSequences(sequences: Sequences, start: number, end: number): Sequences {
  const { ids, length, kinds } = sequences;
  const count = Math.max(0, Math.min(end, sequences.count) - start);
  const part = { ...sequences, count, ids: ids.subarray(start * length, (start + count) * length) };
  return kinds ? { ...part, kinds: kinds.slice(start, start + count) } : part;
}

/** Sequences of several kinds in turns, so that any stretch of them has all; what one kind has more of comes last. */
export function interleaveSequences(sources: readonly { kind: string; sequences: Sequences }[]): Sequences {
  const { name, length } = sources[0]!.sequences;
  const most = Math.max(...sources.map(({ sequences }) => sequences.count));
  const order = Array.from({ length: most }, (_, i) =>
    sources.filter(({ sequences }) => i < sequences.count).map((source) => ({ ...source, i })),
  ).flat();
  const ids = new Int32Array(order.length * length);
  order.forEach(({ sequences, i }, at) => {
    ids.set(sequenceAt(sequences, i), at * length);
  });
  const sum = (field: "documents" | "skipped") => sources.reduce((total, { sequences }) => total + sequences[field], 0);
  return {
    name,
    length,
    count: order.length,
    ids,
    documents: sum("documents"),
    skipped: sum("skipped"),
    kinds: order.map(({ kind }) => kind),
  };
}

export interface PartRequest<Name extends string> {
  name: Name;
  /** Sequences wanted; `rest` takes all documents that the other parts leave. */
  sequences: number | "rest";
  /** Fewer than this is an error. Defaults to `sequences`, or 1 for `rest`. */
  least?: number;
}

export interface SplitTextOptions {
  length: number;
  /** Order in which documents are dealt out. */
  seed: number | string;
  /** Defaults to `packed`. */
  packing?: Packing;
  /** Where the text came from, for messages. Defaults to `text`. */
  where?: string;
  /** See `WindowOptions`. Defaults to false. */
  chat?: boolean;
}

/**
 * Deals documents out to parts, in shuffled order, until each has its sequences. Parts are served in the order of the
 * list, `rest` last; a part takes whole documents, so the next part begins with a fresh one.
 *
 * Fails when the text is too short: says how many tokens there are and how many it takes.
 */
export function splitText<Name extends string>(
  tokenizer: Tokenizer,
  documents: readonly string[],
  parts: readonly PartRequest<Name>[],
  { length, seed, packing = "packed", where = "text", chat = false }: SplitTextOptions,
): Record<Name, Sequences> {
  const order = createRng(seed).shuffle(documents);
  const result = new Map<Name, Sequences>();
  let from = 0;
  const counted = parts.filter(({ sequences }) => sequences !== "rest");
  for (const part of [...counted, ...parts.filter(({ sequences }) => sequences === "rest")]) {
    const maxCount = part.sequences === "rest" ? Number.POSITIVE_INFINITY : part.sequences;
    const sequences = createSequences(tokenizer, order.slice(from), {
      length,
      packing,
      maxCount,
      chat,
      name: part.name,
    });
    from += sequences.documents;
    const least = part.least ?? (part.sequences === "rest" ? 1 : part.sequences);
    if (sequences.count < least) throw tooShort(tokenizer, documents, parts, { length, seed, packing, where, chat });
    result.set(part.name, sequences);
  }
  return Object.fromEntries(result) as Record<Name, Sequences>;
}

function tooShort(
  tokenizer: Tokenizer,
  documents: readonly string[],
  parts: readonly PartRequest<string>[],
  { length, packing, where, chat }: Required<SplitTextOptions>,
): EspalierError {
  const found = documents.reduce((sum, document) => sum + encodeDocument(tokenizer, document, chat).length, 0);
  const wanted = parts.map(({ name, sequences, least }) => ({
    name,
    count: least ?? (sequences === "rest" ? 1 : sequences),
  }));
  const needed = wanted.reduce((sum, { count }) => sum + count * length, 0);
  const list = wanted.map(({ name, count }) => `${name} ${count}`).join(", ");
  const shape = packing === "document" ? `, each from a document of at least ${length} tokens` : "";
  return new EspalierError({
    where,
    expected: `at least ${formatCount(needed)} tokens: sequences of ${length} tokens, ${list}, from different documents${shape}`,
    found: `${formatCount(found)} tokens in ${documents.length} documents`,
    fix: "name a longer text, or ask for fewer or shorter sequences",
    exitCode: 2,
  });
}

function checkLength(length: number): void {
  if (Number.isInteger(length) && length >= 2) return;
  throw new EspalierError({
    where: "sequence length",
    expected: "a whole number of at least 2",
    found: String(length),
    exitCode: 2,
  });
}

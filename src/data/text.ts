import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import { EspalierError, messageOf, openFile } from "../base/index.js";

/** A text file is held in memory whole; more than this is a request to name a part of it. */
export const MAX_TEXT_BYTES = 512 * 2 ** 20;

/** Mark that ends a document, as in TinyStories. */
export const END_OF_TEXT = "<|endoftext|>";

export type Separator =
  /** `endoftext` where the mark occurs, else `paragraphs`. */
  | "auto"
  /** Documents end at `<|endoftext|>`. */
  | "endoftext"
  /** Blank lines separate paragraphs; a document is a run of paragraphs of at least `minLength` characters. */
  | "paragraphs"
  /** The whole file is one document. */
  | "none";

export interface SplitOptions {
  /** Defaults to `auto`. */
  separator?: Separator;
  /** Least length of a document made of paragraphs, in characters. Defaults to 2000. */
  minLength?: number;
  /**
   * Longer documents are cut, at the end of a line, a sentence or a word, so that a text of few long documents can still
   * be dealt out to parts. In characters; `none` is never cut. Defaults to 20,000.
   */
  maxLength?: number;
}

/** Reads UTF-8 text; a file that begins like gzip is unpacked, whatever its name. */
export async function readTextFile(path: string): Promise<string> {
  const source = await openFile(path);
  try {
    if (source.byteLength > MAX_TEXT_BYTES) throw tooLarge(path);
    const bytes = await source.read(0, source.byteLength);
    return decodeText(isGzip(bytes) ? await unpack(bytes, path) : bytes, path);
  } finally {
    await source.close();
  }
}

/** Reads a text file and splits it into documents; a file without any text is an error. */
export async function readDocuments(path: string, options: SplitOptions = {}): Promise<string[]> {
  const documents = splitDocuments(await readTextFile(path), options);
  if (documents.length > 0) return documents;
  throw new EspalierError({ where: path, expected: "text", found: "white space only", fix: "name another file" });
}

/** Documents without white space at their ends; empty ones are left out. */
export function splitDocuments(text: string, options: SplitOptions = {}): string[] {
  const { separator = "auto", minLength = 2000, maxLength = 20_000 } = options;
  const resolved = separator === "auto" ? (text.includes(END_OF_TEXT) ? "endoftext" : "paragraphs") : separator;
  const parts = {
    endoftext: () => text.split(END_OF_TEXT).flatMap((part) => cutLong(part, maxLength)),
    paragraphs: () => gatherParagraphs(text, minLength).flatMap((part) => cutLong(part, maxLength)),
    none: () => [text],
  }[resolved]();
  return parts.map((part) => part.trim()).filter((part) => part.length > 0);
}

/** A lone paragraph is too short to be a document of its own: parts of a text are told apart by document. */
function gatherParagraphs(text: string, minLength: number): string[] {
  const documents: string[] = [];
  let current: string[] = [];
  let length = 0;
  for (const paragraph of text.split(/\r?\n[ \t]*(?:\r?\n[ \t]*)+/)) {
    current.push(paragraph);
    length += paragraph.length;
    if (length < minLength) continue;
    documents.push(current.join("\n\n"));
    current = [];
    length = 0;
  }
  return [...documents, current.join("\n\n")];
}

/** The last good place before the limit; without any, the limit itself. */
function cutLong(text: string, maxLength: number): string[] {
  const parts: string[] = [];
  let from = 0;
  while (text.length - from > maxLength) {
    const head = text.slice(from, from + maxLength);
    const ends = [head.lastIndexOf("\n"), head.lastIndexOf(". ") + 1, head.lastIndexOf(" ")];
    const end = ends.find((at) => at >= maxLength / 2) ?? head.length - Number(/[\ud800-\udbff]$/.test(head));
    parts.push(head.slice(0, end));
    from += end;
  }
  return [...parts, text.slice(from)];
}

export type BundledText = "train" | "valid";

/** Path of the text that comes with the package: TinyStories, `valid` set aside for measuring. */
export function bundledTextPath(part: BundledText): string {
  return fileURLToPath(new URL(`../../data/tinystories/${part}.txt.gz`, import.meta.url));
}

/** Path of the conversations that come with the package: grade-school maths, `valid` set aside for measuring. */
export function bundledChatPath(part: BundledText): string {
  return fileURLToPath(new URL(`../../data/chat/${part}.jsonl.gz`, import.meta.url));
}

function isGzip(bytes: Uint8Array): boolean {
  return bytes[0] === 0x1f && bytes[1] === 0x8b;
}

async function unpack(bytes: Uint8Array, path: string): Promise<Uint8Array> {
  try {
    return await promisify(gunzip)(bytes, { maxOutputLength: MAX_TEXT_BYTES });
  } catch (cause) {
    if (cause instanceof RangeError) throw tooLarge(path);
    throw new EspalierError({
      where: path,
      expected: "a gzip file",
      found: messageOf(cause),
      fix: "fetch it again",
      cause,
    });
  }
}

function tooLarge(path: string): EspalierError {
  return new EspalierError({
    where: path,
    expected: `text of at most ${MAX_TEXT_BYTES / 2 ** 20} MiB`,
    fix: "cut the file: calibration and distillation take a few million tokens at most",
  });
}

function decodeText(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new EspalierError({
      where: path,
      expected: "UTF-8 text",
      found: "bytes that are not UTF-8",
      fix: "convert the file to UTF-8",
      cause,
    });
  }
}

/** @module Rows of JSON lines, read as a stream: every bad line is named, many at once, and none is left out silently. */
import { createReadStream } from "node:fs";
import { createGunzip } from "node:zlib";
import { EspalierError, fileError, ignoreEvents, messageOf, type OnEvent, openFile } from "../base/index.js";

export interface ReadOptions {
  /** `refuse`: bad lines are an error that lists them. `drop`: they are left out, counted in one notice. Defaults to `refuse`. */
  bad?: "refuse" | "drop";
  /** Takes the notice of what was dropped. */
  onEvent?: OnEvent;
}

/** Turns the parsed JSON of a line into a row; throws an EspalierError that begins with `where` (`file:line`). */
export type ParseRow<T> = (value: unknown, where: string) => T;

/** Bad lines that one error lists; reading stops there. */
const mostProblems = 20;

/** The rows of a `.jsonl` file, packed or not. @throws EspalierError where there are none, and for bad lines */
export async function readRows<T>(path: string, parse: ParseRow<T>, options: ReadOptions = {}): Promise<T[]> {
  const rows: T[] = [];
  for await (const row of streamRows(path, parse, options)) rows.push(row);
  if (rows.length > 0) return rows;
  throw new EspalierError({ where: path, expected: "a row a line", found: "no lines", fix: "name another file" });
}

/** The same, one at a time, for files that memory does not hold. After the first bad line only the others are looked for. */
export async function* streamRows<T>(
  path: string,
  parse: ParseRow<T>,
  { bad = "refuse", onEvent = ignoreEvents }: ReadOptions = {},
): AsyncGenerator<T> {
  const problems: EspalierError[] = [];
  let [number, rows, dropped] = [0, 0, 0];
  for await (const line of textLines(path)) {
    number++;
    if (line.trim() === "") continue;
    rows++;
    const row = attempt(() => parse(parseJson(line, `${path}:${number}`), `${path}:${number}`));
    if (!("problem" in row)) {
      if (bad === "drop" || problems.length === 0) yield row.value;
      continue;
    }
    dropped++;
    if (problems.length < mostProblems) problems.push(row.problem);
    else if (bad === "refuse") break;
  }
  if (problems.length === 0) return;
  if (bad === "refuse") throw together(path, problems, dropped);
  const message = `${path}: ${dropped} of ${rows} lines dropped; the first: ${problems[0]!.message}`;
  onEvent({ event: "notice", level: "warning", message });
}

function attempt<T>(work: () => T): { value: T } | { problem: EspalierError } {
  try {
    return { value: work() };
  } catch (cause) {
    if (cause instanceof EspalierError) return { problem: cause };
    throw cause;
  }
}

function together(path: string, problems: readonly EspalierError[], found: number): EspalierError {
  if (problems.length === 1) return problems[0]!;
  const more = found > problems.length ? "\n  and more" : "";
  const list = problems.map(({ message }) => `  ${message.replaceAll("\n", "\n  ")}`).join("\n");
  return new EspalierError({ where: `${path}: ${problems.length} bad lines\n${list}${more}`, exitCode: 2 });
}

function parseJson(line: string, where: string): unknown {
  try {
    return JSON.parse(line);
  } catch (cause) {
    throw new EspalierError({
      where,
      expected: 'a line of JSON such as {"messages": [{"role": "user", "content": "..."}]}',
      found: messageOf(cause),
      cause,
      exitCode: 2,
    });
  }
}

async function* textLines(path: string): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let rest = "";
  try {
    for await (const bytes of await unpackedStream(path)) {
      const lines = (rest + decoder.decode(bytes as Uint8Array, { stream: true })).split("\n");
      rest = lines.pop()!;
      yield* lines;
    }
    yield rest + decoder.decode();
  } catch (cause) {
    throw readProblem(path, cause);
  }
}

/** The bytes, unpacked where the file begins like gzip, whatever its name. */
async function unpackedStream(path: string): Promise<AsyncIterable<unknown>> {
  const file = await openFile(path);
  const [first, second] = await file.read(0, Math.min(2, file.byteLength)).finally(() => file.close());
  const stream = createReadStream(path);
  if (first !== 0x1f || second !== 0x8b) return stream;
  const unpacked = createGunzip();
  stream.on("error", (cause) => unpacked.destroy(cause));
  return stream.pipe(unpacked);
}

function readProblem(path: string, cause: unknown): unknown {
  const code = (cause as NodeJS.ErrnoException).code ?? "";
  const [expected, fix] =
    code === "ERR_ENCODING_INVALID_ENCODED_DATA"
      ? ["UTF-8 text", "convert the file to UTF-8"]
      : code.startsWith("Z_")
        ? ["a whole gzip file", "fetch it again"]
        : [];
  if (expected === undefined) return fileError(path, cause);
  return new EspalierError({ where: path, expected, found: messageOf(cause), ...(fix && { fix }), cause });
}

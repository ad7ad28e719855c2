/** @module The body of a request: not too large, not too slow, UTF-8, JSON, not too deep. */
import { messageOf } from "../base/index.js";
import { Refusal } from "./refusal.js";

export interface BodyLimits {
  maxBodyBytes: number;
  receiveTimeoutMs: number;
}

/** What is too large is still read this far, so that the client hears why and not a broken connection. */
const drainedBytes = 256 << 20;
const maxDepth = 128;

export async function readJsonBody(request: Request, limits: BodyLimits): Promise<unknown> {
  const bytes = await readBytes(request, limits);
  if (bytes.length === 0) throw wrong("a JSON object", "nothing");
  const text = decodeUtf8(bytes);
  checkDepth(text);
  const value = parseJson(text);
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw wrong("a JSON object", Array.isArray(value) ? "a list" : JSON.stringify(value).slice(0, 40));
}

async function readBytes(request: Request, { maxBodyBytes, receiveTimeoutMs }: BodyLimits): Promise<Uint8Array> {
  const reader = request.body?.getReader();
  if (!reader) return new Uint8Array();
  const chunks: Uint8Array[] = [];
  let total = 0;
  let late: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    late = setTimeout(() => reject(tooSlow(receiveTimeoutMs)), receiveTimeoutMs);
  });
  try {
    for (;;) {
      const { value, done } = await Promise.race([reader.read(), timeout]);
      if (done) break;
      total += value.length;
      if (total <= maxBodyBytes) chunks.push(value);
      else chunks.length = 0;
      if (total > maxBodyBytes + drainedBytes) break;
    }
  } catch (error) {
    if (total > maxBodyBytes) throw tooLarge(maxBodyBytes);
    if (error instanceof Refusal) throw error;
    throw wrong("a whole body", `an end after ${total} bytes (${messageOf(error)})`);
  } finally {
    clearTimeout(late);
  }
  if (total > maxBodyBytes) throw tooLarge(maxBodyBytes);
  return Buffer.concat(chunks);
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new Refusal({ status: 400, where: "body", expected: "UTF-8", found: "other bytes", cause });
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new Refusal({ status: 400, where: "body", expected: "JSON", found: messageOf(cause), cause });
  }
}

/** What is nested without end would end in the stack of whoever walks it. */
function checkDepth(text: string): void {
  let depth = 0;
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (quoted) {
      if (code === 0x5c) i++;
      else if (code === 0x22) quoted = false;
    } else if (code === 0x22) quoted = true;
    else if (code === 0x5b || code === 0x7b) depth++;
    else if (code === 0x5d || code === 0x7d) depth--;
    if (depth > maxDepth) throw wrong(`JSON of at most ${maxDepth} levels`, "more");
  }
}

const wrong = (expected: string, found: string) => new Refusal({ status: 400, where: "body", expected, found });

function tooLarge(maxBytes: number): Refusal {
  const expected = `at most ${maxBytes} bytes`;
  return new Refusal({ status: 413, where: "body", expected, found: "more", fix: "serve with a larger --max-body" });
}

function tooSlow(timeoutMs: number): Refusal {
  return new Refusal({ status: 408, where: "body", expected: `its end within ${timeoutMs / 1000} s`, found: "none" });
}

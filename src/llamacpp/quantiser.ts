/** @module llama.cpp's quantiser, with an importance matrix and types for single tensors. */
import koffi from "koffi";
import { allocate } from "./evaluation.js";
import { loadLibrary, logCallback } from "./library.js";
import type { Methods } from "./protocol.js";

type Params = Methods["quantise"]["params"];

export async function quantise(
  params: Params,
  threads: number,
  send: (part: Methods["quantise"]["part"]) => void,
): Promise<Methods["quantise"]["result"]> {
  const library = await loadLibrary();
  const log = createLog(send);
  const callback = koffi.register(log.line, logCallback);
  const matrix = importanceTable(params.importance ?? {});
  const overrides = overrideTable(params.overrides ?? []);
  const { head, embedding } = params;
  try {
    library.logSet(callback, null);
    const rc = await inThread(library.quantize, params.source, params.target, {
      ...library.quantizeDefaults(),
      nthread: threads,
      ftype: params.fileType,
      allow_requantize: true,
      pure: params.pure ?? false,
      ...(head !== undefined && { output_tensor_type: head }),
      ...(embedding !== undefined && { token_embedding_type: embedding }),
      imatrix: matrix.address,
      tt_overrides: overrides.address,
    });
    if (rc !== 0) throw new Error(log.problem() ?? `the quantiser returned ${rc}`);
    return { notices: log.notices() };
  } finally {
    library.logSet(null, null);
    koffi.unregister(callback);
    matrix.free();
    overrides.free();
  }
}

function inThread(call: { async: (...args: unknown[]) => unknown }, ...args: unknown[]): Promise<number> {
  return new Promise((resolve, reject) => {
    call.async(...args, (error: Error | null, result: number) => (error ? reject(error) : resolve(result)));
  });
}

const levels = { warn: 3, error: 4 } as const;

/** llama.cpp tells how far it is, and what went wrong, in its log only. */
function createLog(send: (part: Methods["quantise"]["part"]) => void) {
  const fallbacks = new Map<string, number>();
  const warnings = new Set<string>();
  const errors: string[] = [];
  const warned = (text: string) => {
    const type = /falling back to\s+(\S+)/.exec(text)?.[1];
    if (type) fallbacks.set(type, (fallbacks.get(type) ?? 0) + 1);
    else if (!/not divisible|unusual shape|manual override|required fallback/.test(text)) warnings.add(text);
  };
  return {
    line(level: number, text: string) {
      const step = /^\[\s*(\d+)\/\s*(\d+)\] (\S+)/.exec(text);
      if (step) send({ done: Number(step[1]), total: Number(step[2]), tensor: step[3]! });
      const said = text.replaceAll(/=+|\s+/g, " ").trim();
      if (level === levels.warn && said) warned(said);
      if (level === levels.error && said) errors.push(said);
    },
    notices: () => [...[...fallbacks].map(fallbackNotice), ...warnings],
    problem: () => (errors.length > 0 ? errors.join(" ") : undefined),
  };
}

function fallbackNotice([type, count]: [string, number]): string {
  const tensors = count === 1 ? "1 tensor has" : `${count} tensors have`;
  return `${tensors} rows that the mixture's blocks do not divide, and became ${type.toUpperCase()}`;
}

/** `llama_model_imatrix_data[]`, closed by an empty entry. */
function importanceTable(importance: Record<string, Float32Array>) {
  const entries = Object.entries(importance);
  return pointerTable(
    entries.map(([name, values]) => [
      textBytes(name),
      new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
      values.length,
    ]),
  );
}

/** `llama_model_tensor_override[]`, closed by an empty entry. */
function overrideTable(overrides: readonly (readonly [pattern: string, type: number])[]) {
  return pointerTable(overrides.map(([pattern, type]) => [textBytes(pattern), type]));
}

const textBytes = (text: string) => new TextEncoder().encode(`${text}\0`);
const align = (bytes: number) => 16 * Math.ceil(bytes / 16);

/**
 * A table of 64-bit cells, a line of zeros at its end, and behind it the bytes that its pointers point to, all in one piece of
 * memory. A cell is a number, or bytes that are stored and pointed to.
 */
function pointerTable(lines: readonly (readonly (Uint8Array | number)[])[]) {
  if (lines.length === 0) return { address: null, free: () => {} };
  const width = lines[0]!.length;
  const tableBytes = align(8 * width * (lines.length + 1));
  const stored = lines.flat().filter((cell) => typeof cell !== "number");
  const block = allocate(stored.reduce((sum, { byteLength }) => sum + align(byteLength), tableBytes));
  block.bytes.fill(0, 0, tableBytes);
  const cells = new BigUint64Array(block.bytes.buffer, 0, width * lines.length);
  let end = tableBytes;
  for (const [i, cell] of lines.flat().entries()) {
    if (typeof cell === "number") {
      cells[i] = BigInt(cell);
      continue;
    }
    cells[i] = block.address + BigInt(end);
    block.bytes.set(cell, end);
    end += align(cell.byteLength);
  }
  return { address: block.address, free: block.free };
}

/** @module Damages files in seeded, repeatable ways. For tests only. */
import { EspalierError, type Rng } from "../base/index.js";

/** A damaged copy: bits flipped, lengths made absurd, bytes cut, repeated or put in, mostly within the first `header` bytes. */
export function mutateBytes(bytes: Uint8Array, rng: Rng, header = bytes.byteLength): Uint8Array {
  let result: Uint8Array = Uint8Array.from(bytes);
  for (let times = 1 + rng.int(3); times > 0; times--) {
    const at = rng.int(Math.max(1, Math.min(header, result.byteLength)));
    result = damages[rng.int(damages.length)]!(result, at, rng);
  }
  return result;
}

const absurd = [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff];

const damages: readonly ((bytes: Uint8Array, at: number, rng: Rng) => Uint8Array)[] = [
  (bytes, at, rng) => {
    bytes[at]! ^= 1 << rng.int(8);
    return bytes;
  },
  (bytes, at, rng) => {
    bytes[at] = rng.int(256);
    return bytes;
  },
  (bytes, at, rng) => {
    if (at + 4 <= bytes.byteLength)
      new DataView(bytes.buffer, bytes.byteOffset).setUint32(at, absurd[rng.int(absurd.length)]!, true);
    return bytes;
  },
  (bytes, at) => bytes.slice(0, at),
  (bytes, at, rng) => splice(bytes, at, rng.int(16), new Uint8Array(0)),
  (bytes, at, rng) =>
    splice(
      bytes,
      at,
      0,
      Uint8Array.from({ length: rng.int(16) }, () => rng.int(256)),
    ),
  (bytes, at, rng) => splice(bytes, at, 0, bytes.slice(at, at + rng.int(64))),
];

function splice(bytes: Uint8Array, at: number, removed: number, added: Uint8Array): Uint8Array {
  const end = Math.min(bytes.byteLength, at + removed);
  const result = new Uint8Array(bytes.byteLength - (end - at) + added.byteLength);
  result.set(bytes.subarray(0, at));
  result.set(added, at);
  result.set(bytes.subarray(end), at + added.byteLength);
  return result;
}

const strange: readonly unknown[] = [
  null,
  true,
  "",
  "x",
  -1,
  0,
  0.5,
  1e308,
  -1e308,
  2 ** 31,
  2 ** 53,
  [],
  {},
  [null],
  [[[]]],
  { a: 1 },
  "\u0000",
  "9".repeat(400),
];

/** A damaged copy of a JSON value: fields missing, of the wrong type, or absurd. */
export function mutateJson(value: unknown, rng: Rng): unknown {
  const copy: unknown = structuredClone(value);
  for (let times = 1 + rng.int(3); times > 0; times--) damageField(copy, rng);
  return copy;
}

function damageField(value: unknown, rng: Rng): void {
  if (value === null || typeof value !== "object") return;
  const holder = value as Record<string, unknown>;
  const keys = Object.keys(holder);
  if (keys.length === 0) return;
  const key = keys[rng.int(keys.length)]!;
  const inner = holder[key];
  if (inner !== null && typeof inner === "object" && rng.int(3) > 0) damageField(inner, rng);
  else if (rng.int(4) === 0) delete holder[key];
  else holder[key] = structuredClone(strange[rng.int(strange.length)]);
}

/** Runs `attempt`; success and a clear error are both fine, anything else is thrown on. Returns which it was. */
export async function survives(attempt: () => Promise<unknown>): Promise<"read" | "refused"> {
  try {
    await attempt();
    return "read";
  } catch (error) {
    if (error instanceof EspalierError) return "refused";
    throw error;
  }
}

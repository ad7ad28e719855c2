import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  checkSchema,
  claimLock,
  collectGarbage,
  createAtomicWriter,
  createRng,
  createRngFromState,
  createRssMeter,
  digestJson,
  EspalierError,
  formatBytes,
  formatSeconds,
  hashFile,
  meanInterval,
  median,
  memorySource,
  openFile,
  pairedInterval,
  pairedShareInterval,
  parseBytes,
  parseDurationMs,
  readJson,
  sha256,
  shareInterval,
  studentT975,
  writeFileAtomic,
  z,
} from "./index.js";
import { temporaryDirectory } from "./testing.js";

test("an error says where, what was expected, what was found and what to do", () => {
  const error = new EspalierError({
    where: "a.gguf @ 0x10",
    expected: "magic GGUF",
    found: "PK",
    fix: "fetch it again",
  });
  expect(error.message).toBe("a.gguf @ 0x10: expected magic GGUF, found PK; fetch it again");
  expect(error.exitCode).toBe(1);
});

describe("rng", () => {
  test("a seed gives the same numbers, another seed others", () => {
    const draw = (seed: number) => Array.from({ length: 4 }, createRng(seed).next);
    expect(draw(1)).toEqual(draw(1));
    expect(draw(1)).not.toEqual(draw(2));
  });

  test("goes on from a state", () => {
    const rng = createRng("x");
    rng.next();
    const copy = createRngFromState(rng.state());
    expect([copy.next(), copy.int(1000), copy.normal()]).toEqual([rng.next(), rng.int(1000), rng.normal()]);
  });

  test("is uniform and normal to sampling error", () => {
    const rng = createRng(7);
    const uniform = Array.from({ length: 20_000 }, rng.next);
    const normal = Array.from({ length: 20_000 }, rng.normal);
    // Standard errors: sqrt(1/12/20000) = 0.002 and 1/sqrt(20000) = 0.007.
    expect(Math.abs(meanInterval(uniform).mean - 0.5)).toBeLessThan(0.01);
    expect(Math.abs(meanInterval(normal).mean)).toBeLessThan(0.03);
    expect(Math.abs(meanInterval(normal.map((x) => x * x)).mean - 1)).toBeLessThan(0.05);
  });

  test("a shuffle is a permutation", () => {
    const items = Array.from({ length: 50 }, (_, i) => i);
    const shuffled = createRng(3).shuffle(items);
    expect(shuffled).not.toEqual(items);
    expect([...shuffled].sort((a, b) => a - b)).toEqual(items);
  });
});

describe("files", () => {
  test("a file has its name only when it is whole", async () => {
    const path = join(temporaryDirectory(), "deep", "file.bin");
    const writer = await createAtomicWriter(path);
    await writer.write(new Uint8Array([1, 2]));
    expect(existsSync(path)).toBe(false);
    await writer.write(new Uint8Array([3]));
    await writer.commit();
    const source = await openFile(path);
    expect([...(await source.read(1, 2))]).toEqual([2, 3]);
    await expect(source.read(2, 2)).rejects.toThrow(/truncated/);
    await source.close();
  });

  test("an aborted write leaves nothing", async () => {
    const directory = temporaryDirectory();
    const writer = await createAtomicWriter(join(directory, "file"));
    await writer.write(new Uint8Array(10));
    await writer.abort();
    expect(readdirSync(directory)).toEqual([]);
  });

  test("a path that cannot be written is named", async () => {
    const directory = temporaryDirectory();
    writeFileSync(join(directory, "plain"), "x");
    await expect(writeFileAtomic(join(directory, "plain", "child"), "y")).rejects.toThrow(EspalierError);
    await expect(openFile(join(directory, "missing"))).rejects.toThrow(/missing: found nothing of that name/);
  });

  test("hashes agree and ignore key order", async () => {
    const path = join(temporaryDirectory(), "abc");
    await writeFileAtomic(path, "abc");
    // FIPS 180-2, appendix B.1.
    expect(await hashFile(path)).toBe("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    expect(sha256("abc")).toBe(await hashFile(path));
    expect(digestJson({ a: 1, b: [{ d: 2, c: 3 }] })).toBe(digestJson({ b: [{ c: 3, d: 2 }], a: 1 }));
    expect(digestJson({ a: 1 })).not.toBe(digestJson({ a: 2 }));
  });

  test("memory reads are bounded", async () => {
    await expect(memorySource(new Uint8Array(3), "m").read(2, 2)).rejects.toThrow(/a file of 3 bytes/);
  });

  test("broken JSON names the file", async () => {
    const path = join(temporaryDirectory(), "x.json");
    writeFileSync(path, "{");
    await expect(readJson(path)).rejects.toThrow(/x\.json: expected JSON/);
  });
});

test("a schema error lists every problem with its path", () => {
  const schema = z.strictObject({ a: z.number(), b: z.object({ c: z.string() }) });
  expect(() => checkSchema(schema, { a: "1", b: { c: 2 }, d: 0 }, "recipe.json")).toThrow(
    /recipe\.json: 3 problems[\s\S]*a: [\s\S]*b\.c: /,
  );
});

describe("statistics", () => {
  test("the interval of the mean is Student's", () => {
    // 1..5: mean 3, s = sqrt(2.5), t(4) = 2.776, half width 2.776 * sqrt(0.5) = 1.963.
    const { mean, low, high, n } = meanInterval([1, 2, 3, 4, 5]);
    expect([mean, n]).toEqual([3, 5]);
    expect(high - mean).toBeCloseTo(1.963, 3);
    expect(mean - low).toBeCloseTo(1.963, 3);
  });

  test("t has its tabled values past the table", () => {
    expect(studentT975(40)).toBeCloseTo(2.0211, 3);
    expect(studentT975(120)).toBeCloseTo(1.9799, 3);
  });

  test("pairing removes what both share", () => {
    expect(pairedInterval([10, 20, 30], [9, 19, 29])).toEqual({ mean: 1, low: 1, high: 1, n: 3 });
  });

  test("the interval of a share is Wilson's", () => {
    const z2 = 1.959963984540054 ** 2;
    const outcomes = (hits: number, n: number) => Array.from({ length: n }, (_, i) => i < hits);
    // At p = 0 and p = 1 it has the width z^2 / (n + z^2); 5 of 10 is the textbook's 0.237 to 0.763.
    const none = shareInterval(outcomes(0, 20));
    expect([none.mean, none.low, none.n]).toEqual([0, 0, 20]);
    expect(none.high).toBeCloseTo(z2 / (20 + z2), 12);
    const all = shareInterval(outcomes(20, 20));
    expect(all.low).toBeCloseTo(20 / (20 + z2), 12);
    expect(all.high).toBe(1);
    const half = shareInterval(outcomes(5, 10));
    expect(half.low).toBeCloseTo(0.2366, 4);
    expect(half.high).toBeCloseTo(0.7634, 4);
  });

  test("the difference of paired shares joins both intervals by their correlation", () => {
    const pairs = (both: number, first: number, second: number, none: number) => {
      const rows = [
        ...Array.from({ length: both }, () => [true, true]),
        ...Array.from({ length: first }, () => [true, false]),
        ...Array.from({ length: second }, () => [false, true]),
        ...Array.from({ length: none }, () => [false, false]),
      ];
      return pairedShareInterval(
        rows.map(([a]) => a!),
        rows.map(([, b]) => b!),
      );
    };
    // 10 of 20 in both: half of Wilson's width, d = 0.2007. Phi 0: d sqrt 2. Phi (8 * 8 - 2 * 2 - 20 / 2) / 100 = 0.5: d.
    const half = shareInterval(Array.from({ length: 20 }, (_, i) => i < 10)).high - 0.5;
    expect(pairs(5, 5, 5, 5).high).toBeCloseTo(half * Math.SQRT2, 12);
    expect(pairs(8, 2, 2, 8).high).toBeCloseTo(half, 12);
    expect(pairs(8, 2, 2, 8).low).toBeCloseTo(-half, 12);
    // 15 of 20 beside 10, no correlation: low = 0.25 - sqrt((0.75 - 0.5313)^2 + d^2).
    const shifted = pairs(7, 8, 3, 2);
    expect(shifted.mean).toBeCloseTo(0.25, 12);
    // All agree: a width remains.
    expect(pairs(20, 0, 0, 0).high).toBeCloseTo(1 - shareInterval(Array(20).fill(true)).low, 12);
  });

  test("median", () => {
    expect([median([3, 1, 2]), median([4, 1, 2, 3])]).toEqual([2, 2.5]);
  });
});

test("the meter sees memory that was held and let go", () => {
  const meter = createRssMeter();
  const before = meter.peakBytes();
  const held = new Uint8Array(64 << 20).fill(1);
  expect(meter.peakBytes() - before).toBeGreaterThan(48 << 20);
  expect(held[5]).toBe(1);
  meter.stop();
});

test("arrays that nobody holds are freed when asked", async () => {
  const make = () => new Uint8Array(64 << 20);
  const held = make();
  const refs = [new WeakRef(held), new WeakRef(make())];
  // What a WeakRef was made of lives to the end of the task.
  await new Promise((resolve) => setImmediate(resolve));
  collectGarbage();
  expect(refs.map((ref) => ref.deref()?.byteLength)).toEqual([held.byteLength, undefined]);
});

test("a lock is held by one; one whose process has died is taken over", async () => {
  const lock = join(temporaryDirectory(), "work.lock");
  const first = await claimLock(lock);
  expect(await claimLock(lock)).toEqual({ owner: process.pid });
  const taken = await claimLock(lock, { isOurs: false });
  expect("release" in taken).toBe(true);
  await (first as { release(): Promise<void> }).release();
  // No process of Linux has so large a number.
  writeFileSync(lock, "4194305");
  expect("release" in (await claimLock(lock))).toBe(true);
  expect(readFileSync(lock, "utf8")).toBe(String(process.pid));
});

test("units", () => {
  expect(formatBytes(1010 * 2 ** 20)).toBe("0.986 GiB");
  expect([formatBytes(512), formatBytes(1536), formatSeconds(95), formatSeconds(3.21)]).toEqual([
    "512 B",
    "1.50 KiB",
    "1m 35s",
    "3.2s",
  ]);
});

test("bytes and times that people write", () => {
  expect(["1000", "3GB", "1.5 GiB", "500mb", "2 apples", ""].map(parseBytes)).toEqual([
    1000,
    3e9,
    1.5 * 2 ** 30,
    5e8,
    undefined,
    undefined,
  ]);
  const times = ["5m", "1h30m", "250ms", "90", "-1", "-2s", "soon", "5m soon"];
  expect(times.map(parseDurationMs)).toEqual([300_000, 5_400_000, 250, 90_000, -1000, -2000, undefined, undefined]);
});

import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { createRng } from "../base/index.js";
import { temporaryDirectory } from "../base/testing.js";
import { type Download, type DownloadOptions, downloadFile, partialName } from "./download.js";
import { type FakeHub, startFakeHub } from "./testing.js";

const rng = createRng("file");
const content = Uint8Array.from({ length: 300_000 }, () => rng.int(256));
const small = new TextEncoder().encode('{"model_type": "llama"}');
let hub: FakeHub;
let path: string;
let waits: number[];

beforeAll(async () => {
  hub = await startFakeHub({ "a/b": { files: { "m.gguf": content, "config.json": small }, commit: "c0ffee" } });
});
afterAll(() => hub.close());
beforeEach(() => {
  path = join(temporaryDirectory(), "blobs", "x");
  waits = [];
  hub.requests.length = 0;
});

const sha256 = createHash("sha256").update(content).digest("hex");
const options = (more: DownloadOptions = {}): DownloadOptions => ({
  pause: async (milliseconds) => waits.push(milliseconds),
  stallMs: 200,
  ...more,
});
const fetchFile = (more: Partial<Download> = {}, rest: DownloadOptions = {}) =>
  downloadFile(
    {
      url: `${hub.url}/a/b/resolve/main/m.gguf`,
      path,
      size: content.length,
      digest: { kind: "sha256", value: sha256 },
      ...more,
    },
    options(rest),
  );
const isWhole = () => expect(readFileSync(path).equals(content)).toBe(true);

describe("a download", () => {
  test("arrives whole, says how far it is, and is not fetched twice", async () => {
    const seen: number[] = [];
    await fetchFile({}, { onBytes: (done) => seen.push(done) });
    isWhole();
    expect(seen.at(-1)).toBe(content.length);
    await fetchFile();
    expect(hub.requests).toHaveLength(1);
    expect(existsSync(partialName(path))).toBe(false);
  });

  test("goes on after a cut, with what is missing alone", async () => {
    hub.misbehave("m.gguf", { kind: "drop", after: 100_000 }, { kind: "drop", after: 50_000 });
    await fetchFile();
    isWhole();
    const starts = hub.requests.map((line) => Number(/bytes=(\d+)/.exec(line)?.[1] ?? 0));
    expect(starts).toHaveLength(3);
    expect(starts[1]).toBeGreaterThan(0);
    expect(starts[2]).toBeGreaterThanOrEqual(starts[1]!);
  });

  test("goes on after a connection that falls silent", async () => {
    hub.misbehave("m.gguf", { kind: "stall", after: 70_000 });
    await fetchFile();
    isWhole();
    expect(hub.requests).toHaveLength(2);
  });

  test("starts over where the server does not know ranges", async () => {
    hub.misbehave("m.gguf", { kind: "drop", after: 100_000 }, { kind: "whole" });
    await fetchFile();
    isWhole();
  });

  test("goes on where an earlier process was stopped", async () => {
    hub.misbehave("m.gguf", { kind: "drop", after: 100_000 });
    await expect(fetchFile({}, { attempts: 1 })).rejects.toThrow(/without progress: 1.*what is there already is kept/s);
    expect(existsSync(path)).toBe(false);
    await fetchFile();
    isWhole();
    expect(hub.requests[1]).toMatch(/bytes=\d+-$/);
  });

  test("waits as long as it is told, and longer each time otherwise", async () => {
    hub.misbehave(
      "m.gguf",
      { kind: "status", status: 429, headers: { "retry-after": "7" } },
      { kind: "status", status: 503 },
      { kind: "status", status: 500 },
    );
    await fetchFile();
    isWhole();
    expect(waits).toEqual([7000, 2000, 4000]);
  });

  test.each([
    [401, "HF_TOKEN"],
    [403, "accept the model's terms"],
    [404, "check the name"],
  ])("HTTP %i is told at once", async (status, message) => {
    hub.misbehave("m.gguf", { kind: "status", status });
    await expect(fetchFile()).rejects.toThrow(message);
    expect(hub.requests).toHaveLength(1);
  });

  test("other bytes than were promised are thrown away", async () => {
    hub.misbehave("m.gguf", { kind: "corrupt" });
    await expect(fetchFile()).rejects.toThrow(`expected sha256 ${sha256}`);
    expect([existsSync(path), existsSync(partialName(path))]).toEqual([false, false]);
    hub.misbehave("m.gguf", { kind: "longer" });
    await expect(fetchFile()).rejects.toThrow(/more than 300000 bytes/);
    expect([existsSync(path), existsSync(partialName(path))]).toEqual([false, false]);
    await fetchFile();
    isWhole();
  });

  test("a partial file of something longer is thrown away", async () => {
    await fetchFile({ path: join(path, "..", "other") });
    writeFileSync(partialName(path), new Uint8Array(400_000));
    await fetchFile();
    isWhole();
    // The server says so where the size is not known beforehand.
    const { rmSync } = await import("node:fs");
    rmSync(path);
    writeFileSync(partialName(path), new Uint8Array(400_000));
    await downloadFile(
      { url: `${hub.url}/a/b/resolve/main/m.gguf`, path, digest: { kind: "sha256", value: sha256 } },
      options(),
    );
    isWhole();
  });

  test("a small file is known by git's digest", async () => {
    const value = createHash("sha1").update(`blob ${small.length}\0`).update(small).digest("hex");
    const url = `${hub.url}/a/b/resolve/main/config.json`;
    await downloadFile({ url, path, size: small.length, digest: { kind: "git-sha1", value } }, options());
    expect(readFileSync(path).equals(small)).toBe(true);
  });

  test("stops when it is told to, and keeps what it has", async () => {
    const controller = new AbortController();
    hub.misbehave("m.gguf", { kind: "stall", after: 100_000 });
    const running = fetchFile(
      {},
      { signal: controller.signal, stallMs: 60_000, onBytes: (done) => done >= 100_000 && controller.abort() },
    );
    await expect(running).rejects.toThrow(/abort/i);
    expect(existsSync(partialName(path))).toBe(true);
    await fetchFile();
    isWhole();
  });
});

import { existsSync, lstatSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { scanCacheDir } from "@huggingface/hub";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { createRng, type Event } from "../base/index.js";
import { temporaryDirectory } from "../base/testing.js";
import { type HubName, parseModelName } from "./names.js";
import { type PullOptions, pull } from "./pull.js";
import { type FakeHub, startFakeHub } from "./testing.js";

const rng = createRng("weights");
const bytes = (count: number) => Uint8Array.from({ length: count }, () => rng.int(256));
const files = {
  "config.json": new TextEncoder().encode("{}"),
  "tokenizer.json": bytes(5000),
  "model.safetensors": bytes(200_000),
  "m-Q8_0.gguf": bytes(90_000),
  "README.md": bytes(10),
};
const commit = "0123456789abcdef0123456789abcdef01234567";
let hub: FakeHub;
let cache: string;
beforeAll(async () => {
  hub = await startFakeHub({
    "a/b": { files, commit },
    "secret/model": { files, commit, token: "hf_x" },
    "gated/model": { files, commit, token: "hf_x", gated: true },
  });
});
afterAll(() => hub.close());
beforeEach(() => {
  cache = temporaryDirectory();
  hub.requests.length = 0;
});

const pullFrom = (name: string, more: PullOptions = {}) =>
  pull(parseModelName(name) as HubName, {
    endpoint: hub.url,
    cache,
    pause: async () => {},
    stallMs: 200,
    token: "",
    ...more,
  });

describe("pulling from a hub", () => {
  test("lays files out as Python's cache does", async () => {
    const pulled = await pullFrom("hf:a/b");
    const root = join(cache, "models--a--b");
    expect(pulled).toMatchObject({
      commit,
      path: join(root, "snapshots", commit),
      bytes: 205_012,
      fetchedBytes: 205_012,
    });
    expect(readFileSync(join(root, "refs", "main"), "utf8")).toBe(commit);
    const weights = join(pulled.path, "model.safetensors");
    expect(lstatSync(weights).isSymbolicLink()).toBe(true);
    expect(readlinkSync(weights)).toMatch(/^\.\.\/\.\.\/blobs\/[0-9a-f]{64}$/);
    expect(readlinkSync(join(pulled.path, "config.json"))).toMatch(/^\.\.\/\.\.\/blobs\/[0-9a-f]{40}$/);
    expect(readFileSync(weights).equals(files["model.safetensors"])).toBe(true);
    const { repos, warnings } = await scanCacheDir(cache);
    expect(warnings).toEqual([]);
    expect(repos.map(({ id, filesCount, revisions }) => [id.name, filesCount, revisions[0]!.refs])).toEqual([
      ["a/b", 4, ["main"]],
    ]);
  });

  test("a second pull fetches nothing, and a type of the same repository only what is new", async () => {
    await pullFrom("hf:a/b");
    const fetched = hub.requests.filter((line) => line.includes("/resolve/")).length;
    expect((await pullFrom("hf:a/b")).fetchedBytes).toBe(0);
    expect(hub.requests.filter((line) => line.includes("/resolve/"))).toHaveLength(fetched);
    const gguf = await pullFrom("hf:a/b:q8_0");
    expect(gguf.path).toMatch(/m-Q8_0\.gguf$/);
    expect(gguf.fetchedBytes).toBe(90_000);
  });

  test("two at once fetch each file once", async () => {
    const events: Event[] = [];
    hub.misbehave("model.safetensors", { kind: "stall", after: 1000 });
    const onEvent = (event: Event) => events.push(event);
    const [first, second] = await Promise.all([pullFrom("hf:a/b", { onEvent }), pullFrom("hf:a/b", { onEvent })]);
    expect(first.path).toBe(second.path);
    const starts = hub.requests.filter((line) => line.endsWith("/model.safetensors"));
    expect(starts).toHaveLength(1);
    expect(events.some((event) => event.event === "notice" && event.message.includes("joined"))).toBe(true);
  });

  test("a file that cannot be fetched leaves no snapshot, and the next pull goes on", async () => {
    hub.misbehave("model.safetensors", { kind: "drop", after: 60_000 });
    await expect(pullFrom("hf:a/b", { attempts: 1 })).rejects.toThrow(/run the same command again/);
    expect(existsSync(join(cache, "models--a--b", "snapshots"))).toBe(false);
    const pulled = await pullFrom("hf:a/b");
    expect(pulled.fetchedBytes).toBeLessThan(205_012);
    expect(hub.requests.some((line) => /model\.safetensors bytes=\d+-/.test(line))).toBe(true);
  });

  test("private and gated repositories need a token", async () => {
    await expect(pullFrom("hf:secret/model")).rejects.toThrow(/HTTP 401.*HF_TOKEN/s);
    await expect(pullFrom("hf:gated/model")).rejects.toThrow(/HTTP 403.*accept the model's terms/s);
    expect((await pullFrom("hf:secret/model", { token: "hf_x" })).files).toHaveLength(4);
  });

  test("unknown names, revisions and hubs are told", async () => {
    await expect(pullFrom("hf:no/such")).rejects.toThrow(/hf:no\/such@main: .*HTTP 404.*check the name/s);
    await expect(pullFrom("hf:a/b@v9")).rejects.toThrow(/a\/b@v9.*HTTP 404/s);
    await expect(pullFrom("hf:a/b", { endpoint: "http://127.0.0.1:9" })).rejects.toThrow(/HF_ENDPOINT/);
  });

  test("by commit, without a name for it", async () => {
    await pullFrom(`hf:a/b@${commit}`);
    expect(existsSync(join(cache, "models--a--b", "refs"))).toBe(false);
  });

  test("says how far it is", async () => {
    const events: Event[] = [];
    await pullFrom("hf:a/b", { onEvent: (event) => events.push(event) });
    expect(events.at(-1)).toMatchObject({ event: "progress", done: 205_012, total: 205_012, unit: "bytes" });
  });
});

import { existsSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { temporaryDirectory } from "../base/testing.js";
import { listCache, removeFromCache } from "./listing.js";
import { type HubName, parseModelName } from "./names.js";
import { pull } from "./pull.js";
import { type FakeHub, startFakeHub } from "./testing.js";

const config = new TextEncoder().encode("{}");
const weights = new Uint8Array(2000).fill(7);
let old: FakeHub;
let hub: FakeHub;
beforeAll(async () => {
  old = await startFakeHub({
    "a/b": { commit: "aaaa", files: { "config.json": config, "model.safetensors": weights } },
  });
  const newer = { "config.json": config, "model.safetensors": weights.map((byte) => byte + 1) };
  hub = await startFakeHub({
    "a/b": { commit: "bbbb", files: newer },
    "c/d": { commit: "cccc", files: { "m.gguf": weights } },
  });
});
afterAll(async () => {
  await old.close();
  await hub.close();
});

test("lists what was pulled, and takes out a commit without what another one shares", async () => {
  const cache = temporaryDirectory();
  const pullFrom = (name: string, { url }: FakeHub) =>
    pull(parseModelName(name) as HubName, { endpoint: url, cache, token: "" });
  expect(await listCache(cache)).toEqual([]);
  await pullFrom("hf:a/b", old);
  await pullFrom("hf:a/b", hub);
  await pullFrom("hf:c/d", hub);
  const listed = await listCache(cache);
  expect(listed.map(({ repository, commit, refs, bytes }) => [repository, commit, refs, bytes])).toEqual([
    ["a/b", "aaaa", [], 2002],
    ["a/b", "bbbb", ["main"], 2002],
    ["c/d", "cccc", ["main"], 2000],
  ]);
  expect(listed[0]!.files).toEqual([
    { path: "config.json", size: 2 },
    { path: "model.safetensors", size: 2000 },
  ]);
  // The two commits have the same config.json.
  expect(await removeFromCache("a/b", { cache, commit: "aaaa" })).toBe(2000);
  expect((await listCache(cache)).map(({ commit, bytes }) => [commit, bytes])).toEqual([
    ["bbbb", 2002],
    ["cccc", 2000],
  ]);
  await expect(removeFromCache("a/b", { cache, commit: "aaaa" })).rejects.toThrow(/commits bbbb/);
  expect(await removeFromCache("c/d", { cache })).toBe(2000 + "cccc".length);
  await expect(removeFromCache("c/d", { cache })).rejects.toThrow(/none of that name/);
  expect(existsSync(cache)).toBe(true);
});

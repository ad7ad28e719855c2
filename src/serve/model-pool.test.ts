import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { OnEvent } from "../base/index.js";
import { temporaryDirectory } from "../base/testing.js";
import { createModelPool, type ModelPoolOptions } from "./model-pool.js";
import { createFakeEngine, type FakeOptions } from "./testing.js";

const directory = temporaryDirectory();
const file = (name: string) => join(directory, `${name}.gguf`);
const names = ["a", "b", "c"];
// A fake takes 2,000 bytes when it is loaded, and is guessed to take 1,250 before.
for (const name of names) writeFileSync(file(name), Buffer.alloc(1000));

function poolOf(options: Partial<ModelPoolOptions> = {}, fake: FakeOptions = {}) {
  const engine = createFakeEngine(fake);
  const models = names.map((name) => ({ name, gguf: file(name) }));
  const pool = createModelPool({ engine, models, memoryBytes: 1e6, keepAliveMs: -1, queue: 10, ...options });
  const use = async (...asked: string[]) => {
    for (const lease of await pool.lease(asked)) lease.release();
  };
  return { engine, pool, use, loaded: () => pool.loaded().map(({ name }) => name) };
}

test("a model is loaded once, when it is first asked for", async () => {
  const { engine, pool, loaded } = poolOf({ load: { contextSize: 77 } });
  expect(loaded()).toEqual([]);
  const leases = await Promise.all([pool.lease(["a"]), pool.lease(["a"])]);
  expect(engine.loads).toEqual([{ gguf: file("a"), options: { contextSize: 77 } }]);
  expect(leases[0]![0]!.model).toBe(leases[1]![0]!.model);
});

test("the one that was used longest ago goes when memory is short", async () => {
  const { engine, use, loaded } = poolOf({ memoryBytes: 4000 });
  await use("a");
  await use("b");
  await use("a");
  await use("c");
  expect(loaded()).toEqual(["a", "c"]);
  expect(engine.unloads).toEqual([file("b")]);
});

test("a model that is in use is waited for, and those who ask for it after that wait too", async () => {
  const notices: string[] = [];
  const onEvent: OnEvent = (event) => notices.push("message" in event ? event.message : event.event);
  const { pool, use, loaded } = poolOf({ memoryBytes: 2000, onEvent });
  const [held] = await pool.lease(["a"]);
  const order: string[] = [];
  const b = use("b").then(() => order.push("b"));
  await expect.poll(() => notices).toContain("b: waits until a model is free");
  const a = use("a").then(() => order.push("a"));
  expect(order).toEqual([]);
  held!.release();
  await Promise.all([a, b]);
  expect(order).toEqual(["b", "a"]);
  expect(loaded()).toEqual(["a"]);
});

test("a model that never fits is refused with its numbers, and so is a pair", async () => {
  const { pool, use } = poolOf({ memoryBytes: 1200 });
  await expect(pool.lease(["a"])).rejects.toMatchObject({ status: 503 });
  await expect(pool.lease(["a"])).rejects.toThrow(
    'model "a": expected at most 1.17 KiB (--memory), found about 1.22 KiB',
  );
  const pair = poolOf({ memoryBytes: 2000 });
  await expect(pair.use("a", "b")).rejects.toThrow('model "a|b"');
  await use("a").catch(() => {});
});

describe("keep-alive", () => {
  test("ends a while after the last request", async () => {
    const { engine, use, loaded } = poolOf({ keepAliveMs: 10 });
    await use("a");
    expect(loaded()).toEqual(["a"]);
    await expect.poll(loaded).toEqual([]);
    expect(engine.unloads).toEqual([file("a")]);
  });

  test("is the request's where it says so", async () => {
    const { pool, loaded } = poolOf();
    const [lease] = await pool.lease(["a"], { keepAliveMs: 0 });
    expect(loaded()).toEqual(["a"]);
    lease!.release();
    expect(loaded()).toEqual([]);
    // The next request that says nothing has the pool's.
    for (const again of await pool.lease(["a"])) again.release();
    expect(loaded()).toEqual(["a"]);
  });

  test("is over at once when it is asked for, but not under a request", async () => {
    const { pool, loaded } = poolOf();
    const [lease] = await pool.lease(["a"]);
    pool.unload("a");
    expect(loaded()).toEqual(["a"]);
    lease!.release();
    expect(loaded()).toEqual([]);
  });
});

test("a request for two models names both, and a name may hold the bar itself", () => {
  const { pool } = poolOf();
  expect(pool.resolve("a|b")).toEqual(["a", "b"]);
  expect(pool.resolve("a")).toEqual(["a"]);
  pool.add({ name: "a|x", gguf: file("a") });
  expect(pool.resolve("a|x")).toEqual(["a|x"]);
  expect(() => pool.resolve("a|z")).toThrow('model "z": expected one of a, b, c, a|x, or two with | between them');
});

test("two names of one file are one model, and Ollama's tag is no part of a name", async () => {
  const { engine, pool, use } = poolOf();
  pool.add({ name: "alias", gguf: file("a") });
  await use("a", "alias");
  expect(engine.loads).toHaveLength(1);
  expect(pool.list().map(({ name }) => name)).toEqual(["a", "b", "c", "alias"]);
  expect(pool.resolve("alias|b:latest")).toEqual(["alias", "b"]);
});

test("places over the cap are refused, and come back with their release", async () => {
  const { pool } = poolOf({ queue: 1, load: { sequences: 2 } });
  const [three] = await pool.lease(["a"], { places: 3 });
  await expect(pool.lease(["a"])).rejects.toMatchObject({ status: 503, retryAfterSeconds: 1 });
  three!.release();
  three!.release();
  await pool.lease(["a"], { places: 3 });
  await expect(pool.lease(["a"])).rejects.toMatchObject({ status: 503 });
});

test("a file that is gone, and one that does not load, are named; the next request tries again", async () => {
  const missing = poolOf({ models: [{ name: "gone", gguf: file("gone") }] });
  await expect(missing.pool.lease(["gone"])).rejects.toThrow('model "gone": expected its file');
  const broken = poolOf();
  const load = broken.engine.loadModel;
  broken.engine.loadModel = async () => Promise.reject(new Error("GGML_ASSERT(x)"));
  await expect(broken.use("a")).rejects.toThrow('model "a": found GGML_ASSERT(x)');
  broken.engine.loadModel = load;
  await broken.use("a");
  expect(broken.loaded()).toEqual(["a"]);
});

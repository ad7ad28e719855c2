import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type Event, writeFileAtomic } from "../base/index.js";
import { temporaryDirectory } from "../base/testing.js";
import { listFiles, listStore, openStore, removeFromStore, type StageRequest } from "./store.js";

function setUp() {
  const root = join(temporaryDirectory(), "store");
  const events: Event[] = [];
  const context = { onEvent: (event: Event) => void events.push(event), signal: new AbortController().signal };
  let runs = 0;
  const request = (options: unknown, inputs: StageRequest["inputs"] = {}): StageRequest => ({
    stage: "double",
    version: 1,
    options,
    inputs,
    async run(directory) {
      runs++;
      await writeFileAtomic(join(directory, "value.txt"), String(2 * (options as { n: number }).n));
    },
  });
  return { root, store: openStore(root), context, request, events, runs: () => runs };
}

test("files that are links are listed, as a snapshot of the hub's cache has nothing else", async () => {
  const [blobs, snapshot] = [temporaryDirectory(), temporaryDirectory()];
  writeFileSync(join(blobs, "abc"), "{}");
  mkdirSync(join(snapshot, "sub"));
  symlinkSync(join(blobs, "abc"), join(snapshot, "sub", "config.json"));
  symlinkSync(blobs, join(snapshot, "folder"));
  expect(await listFiles(snapshot)).toEqual(["sub/config.json"]);
});

describe("store", () => {
  test("a stage runs once for the same options and inputs", async () => {
    const { store, context, request, events, runs } = setUp();
    const first = await store.produce(request({ n: 4 }), context);
    const second = await store.produce(request({ n: 4 }), context);
    expect(runs()).toBe(1);
    expect([first.cached, second.cached, second.digest]).toEqual([false, true, first.digest]);
    expect(readFileSync(join(second.directory, "value.txt"), "utf8")).toBe("8");
    expect(events.filter(({ event }) => event === "stage-end")).toMatchObject([{ cached: false }, { cached: true }]);
  });

  test("other options, inputs or versions run anew", async () => {
    const { store, context, request, runs } = setUp();
    await store.produce(request({ n: 4 }), context);
    await store.produce(request({ n: 5 }), context);
    await store.produce(request({ n: 4 }, { text: "abc" }), context);
    await store.produce({ ...request({ n: 4 }), version: 2 }, context);
    expect(runs()).toBe(4);
  });

  test("a later stage depends on the content of an earlier one, not on how it was made", async () => {
    const { store, context, request, runs } = setUp();
    const a = await store.produce(request({ n: 4 }), context);
    const b = await store.produce(request({ n: 4, note: "same value" }), context);
    expect(a.digest).toBe(b.digest);
    const later = (input: typeof a) => store.produce({ ...request({ n: 1 }, { input }), stage: "later" }, context);
    await later(a);
    await later(b);
    expect(runs()).toBe(3);
  });

  test("a failed stage leaves no artifact, keeps its whole files and drops its half-written ones", async () => {
    const { root, store, context, request } = setUp();
    const failing: StageRequest = {
      ...request({ n: 1 }),
      async run(directory) {
        if (!existsSync(join(directory, "whole"))) {
          await writeFileAtomic(join(directory, "whole"), "w");
          writeFileSync(join(directory, "half.1.tmp"), "h");
          mkdirSync(join(directory, "model.1.tmp"));
          writeFileSync(join(directory, "model.1.tmp", "config.json"), "c");
          throw new Error("cut");
        }
        await writeFileAtomic(join(directory, "rest"), "r");
      },
    };
    await expect(store.produce(failing, context)).rejects.toThrow("cut");
    expect(existsSync(join(root, "artifacts"))).toBe(false);
    const artifact = await store.produce(failing, context);
    expect(readdirSync(artifact.directory).sort()).toEqual(["cost.json", "manifest.json", "rest", "whole"]);
  });

  test("a lock of a dead process is taken over, of a live one respected", async () => {
    const { root, store, context, request } = setUp();
    await store.produce(request({ n: 1 }), context).then(({ directory }) => removeFromStore(root, entryOf(directory)));
    const name = (await store.produce(request({ n: 1 }), context)).directory.split("/").at(-1)!;
    await removeFromStore(root, { name, finished: true, bytes: 0 });
    writeFileSync(join(root, "work", `${name}.lock`), "1");
    await expect(store.produce(request({ n: 1 }), context)).rejects.toThrow(/process 1 at work/);
    writeFileSync(join(root, "work", `${name}.lock`), "4194305");
    expect((await store.produce(request({ n: 1 }), context)).cached).toBe(false);
  });

  test("an aborted run starts nothing", async () => {
    const { store, request, runs } = setUp();
    const signal = AbortSignal.abort();
    await expect(store.produce(request({ n: 1 }), { onEvent: () => {}, signal })).rejects.toThrow();
    expect(runs()).toBe(0);
  });

  test("a missing file of a finished stage is an error that says what to do", async () => {
    const { store, context, request } = setUp();
    const { directory } = await store.produce(request({ n: 1 }), context);
    const { rmSync } = await import("node:fs");
    rmSync(join(directory, "value.txt"));
    await expect(store.produce(request({ n: 1 }), context)).rejects.toThrow(/espalier clean --all/);
  });

  test("lists and frees what it holds", async () => {
    const { root, store, context, request } = setUp();
    await store.produce(request({ n: 1 }), context);
    const entries = await listStore(root);
    expect(entries).toHaveLength(1);
    expect(entries[0]!.bytes).toBeGreaterThan(100);
    await removeFromStore(root, entries[0]!);
    expect(await listStore(root)).toEqual([]);
  });
});

function entryOf(directory: string) {
  return { name: directory.split("/").at(-1)!, finished: true, bytes: 0 };
}

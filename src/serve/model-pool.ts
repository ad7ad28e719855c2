/** @module The models that are served: loaded when asked for, kept for a while, evicted when memory is short. */
import { stat } from "node:fs/promises";
import { EspalierError, formatBytes, ignoreEvents, messageOf, type OnEvent } from "../base/index.js";
import type { InferenceEngine, LoadedModel, LoadOptions } from "../llamacpp/index.js";
import { Refusal } from "./refusal.js";

export interface ServedModel {
  name: string;
  /** A `.gguf` file. */
  gguf: string;
}

export interface ModelPoolOptions {
  engine: InferenceEngine;
  models: readonly ServedModel[];
  load?: LoadOptions;
  /** Bytes that all loaded models may take together. */
  memoryBytes: number;
  /** How long a model stays after its last request, in milliseconds; below 0: for ever. */
  keepAliveMs: number;
  /** Requests of one model that may wait beside those that run. */
  queue: number;
  onEvent?: OnEvent;
}

export interface LeaseOptions {
  signal?: AbortSignal | undefined;
  /** Overrides the pool's, until the model is unloaded. */
  keepAliveMs?: number | undefined;
  /** Answers that the request asks for: so many places it takes. Defaults to 1. */
  places?: number;
}

export interface Lease {
  name: string;
  model: LoadedModel;
  release(): void;
}

interface Entry extends ServedModel {
  loading?: Promise<LoadedModel> | undefined;
  loaded?: LoadedModel | undefined;
  /** Places taken by requests that run or wait. */
  places: number;
  /** Places of requests that stand behind a load which waits for room. */
  behind: number;
  lastUse: number;
  keepAliveMs: number;
  expiresAt?: Date | undefined;
  timer?: NodeJS.Timeout | undefined;
  /** What it took when it was loaded. */
  memoryBytes?: number;
}

export interface LoadedEntry {
  name: string;
  model: LoadedModel;
  places: number;
  expiresAt: Date | undefined;
}

export interface ModelPool {
  list(): readonly ServedModel[];
  add(model: ServedModel): void;
  /** The models that a request's `model` names: one, or with `a|b` several. */
  resolve(name: string): string[];
  /** Loads the models if they are not; every lease must be released. */
  lease(names: readonly string[], options?: LeaseOptions): Promise<Lease[]>;
  loaded(): LoadedEntry[];
  /** When no request uses it any more. */
  unload(name: string): void;
  dispose(): Promise<void>;
}

/** Weights are most of what a model takes; until it was loaded once, the rest is a guess. */
const guessedShare = 1.25;
const defaultSequences = 4;

export function createModelPool(options: ModelPoolOptions): ModelPool {
  const { engine, memoryBytes, onEvent = ignoreEvents } = options;
  /** By file: two names of one file are one model. */
  const entries = new Map<string, Entry>();
  const byName = new Map<string, Entry>();
  const add = ({ name, gguf }: ServedModel) => {
    const entry = entries.get(gguf) ?? {
      name,
      gguf,
      places: 0,
      behind: 0,
      lastUse: 0,
      keepAliveMs: options.keepAliveMs,
    };
    entries.set(gguf, entry);
    byName.set(name, entry);
  };
  for (const model of options.models) add(model);
  let uses = 0;
  let disposed = false;
  let freed: (() => void) | undefined;
  // One at a time, so that two never evict for the same room; a comparison takes its models together for the same reason.
  const loads = createLock();
  const comparisons = createLock();

  const find = (name: string): Entry => {
    // Clients of Ollama put the tag behind the name.
    const entry = byName.get(name) ?? byName.get(name.replace(/:latest$/, ""));
    if (entry) return entry;
    throw new Refusal({
      status: 404,
      param: "model",
      where: `model "${name}"`,
      expected: `one of ${[...byName.keys()].join(", ")}, or two with | between them`,
      found: "neither",
    });
  };

  const unloadEntry = async (entry: Entry, why: string) => {
    const { loaded } = entry;
    clearTimeout(entry.timer);
    entry.loaded = undefined;
    entry.expiresAt = undefined;
    entry.keepAliveMs = options.keepAliveMs;
    if (!loaded) return;
    onEvent({ event: "notice", level: "info", message: `${entry.name}: unloaded (${why})` });
    await loaded.unload().catch((error: unknown) => {
      onEvent({ event: "notice", level: "warning", message: `${entry.name}: ${messageOf(error)}` });
    });
  };

  const takenBytes = () => [...entries.values()].reduce((sum, { loaded }) => sum + (loaded?.info.memoryBytes ?? 0), 0);
  const idle = () => [...entries.values()].filter(({ loaded, places }) => loaded && places === 0);

  const makeRoom = async (needed: number, entry: Entry, signal?: AbortSignal) => {
    if (needed > memoryBytes) throw tooLarge(entry.name, needed, memoryBytes);
    while (takenBytes() + needed > memoryBytes) {
      const [oldest] = idle().sort((a, b) => a.lastUse - b.lastUse);
      if (oldest) {
        await unloadEntry(oldest, `room for ${entry.name}`);
        continue;
      }
      onEvent({ event: "notice", level: "info", message: `${entry.name}: waits until a model is free` });
      await waitFor((resolve) => (freed = resolve), signal);
    }
    freed = undefined;
  };

  const load = (entry: Entry): Promise<LoadedModel> => {
    entry.loading ??= loads
      .run(async () => {
        await makeRoom(entry.memoryBytes ?? (await fileBytes(entry)) * guessedShare, entry);
        const loaded = await engine.loadModel(entry.gguf, options.load ?? {}).catch((cause: unknown) => {
          throw new EspalierError({ where: `model "${entry.name}"`, found: messageOf(cause), cause });
        });
        entry.loaded = loaded;
        entry.memoryBytes = loaded.info.memoryBytes;
        onEvent({
          event: "notice",
          level: "info",
          message: `${entry.name}: loaded, ${formatBytes(entry.memoryBytes)}`,
        });
        return loaded;
      })
      .finally(() => {
        entry.loading = undefined;
      });
    return entry.loading;
  };

  const settle = (entry: Entry) => {
    if (entry.places > 0 || !entry.loaded) return;
    freed?.();
    if (entry.keepAliveMs < 0) return;
    if (entry.keepAliveMs === 0) {
      void unloadEntry(entry, "keep-alive 0");
      return;
    }
    entry.expiresAt = new Date(Date.now() + entry.keepAliveMs);
    entry.timer = setTimeout(() => void unloadEntry(entry, "idle"), entry.keepAliveMs);
    entry.timer.unref();
  };

  const standBehind = async (entry: Entry, places: number, signal?: AbortSignal) => {
    entry.behind += places;
    await abortable(
      loads.run(async () => {}),
      signal,
    ).finally(() => {
      entry.behind -= places;
    });
  };

  const take = async (name: string, { signal, keepAliveMs, places = 1 }: LeaseOptions): Promise<Lease> => {
    const entry = find(name);
    checkQueue(entry, places, options);
    // While a load waits for room, later requests come after it: else a busy model would keep the others out for ever.
    if (freed && !entry.loading) await standBehind(entry, places, signal);
    clearTimeout(entry.timer);
    entry.expiresAt = undefined;
    entry.places += places;
    entry.lastUse = ++uses;
    if (keepAliveMs !== undefined) entry.keepAliveMs = keepAliveMs;
    let released = false;
    const release = () => {
      if (released) return;
      released = true;
      entry.places -= places;
      settle(entry);
    };
    try {
      const model = entry.loaded ?? (await abortable(load(entry), signal));
      return { name, model, release };
    } catch (error) {
      release();
      throw error;
    }
  };

  const takeAll = async (names: readonly string[], leaseOptions: LeaseOptions): Promise<Lease[]> => {
    const leases: Lease[] = [];
    try {
      for (const name of names) leases.push(await take(name, leaseOptions));
      return leases;
    } catch (error) {
      for (const lease of leases) lease.release();
      throw error;
    }
  };

  return {
    list: () => [...byName].map(([name, { gguf }]) => ({ name, gguf })),
    add,
    resolve(name) {
      if (byName.has(name)) return [name];
      return name.split("|").map((part) => (byName.has(part) ? part : find(part).name));
    },
    async lease(names, leaseOptions = {}) {
      if (disposed) throw new Refusal({ status: 503, where: "the server is stopping", retryAfterSeconds: 5 });
      if (names.length === 1) return takeAll(names, leaseOptions);
      return comparisons.run(async () => {
        await checkTogether(names.map(find), memoryBytes);
        return takeAll(names, leaseOptions);
      });
    },
    loaded: () =>
      [...entries.values()].flatMap(({ name, loaded, places, expiresAt }) =>
        loaded ? [{ name, model: loaded, places, expiresAt }] : [],
      ),
    unload(name) {
      const entry = find(name);
      if (entry.places === 0) void unloadEntry(entry, "asked for");
      else entry.keepAliveMs = 0;
    },
    async dispose() {
      disposed = true;
      await Promise.all([...entries.values()].map((entry) => unloadEntry(entry, "the server stops")));
    },
  };
}

function checkQueue(entry: Entry, places: number, { load, queue }: ModelPoolOptions): void {
  const running = entry.loaded?.info.sequences ?? load?.sequences ?? defaultSequences;
  const taken = entry.places + entry.behind;
  if (taken + places <= running + queue) return;
  throw new Refusal({
    status: 503,
    where: `model "${entry.name}"`,
    expected: `at most ${queue} requests waiting beside ${running} running`,
    found: `${taken} already`,
    fix: "ask again later, or serve with a larger --queue or --parallel",
    retryAfterSeconds: 1,
  });
}

async function checkTogether(entries: readonly Entry[], memoryBytes: number): Promise<void> {
  const different = [...new Set(entries)];
  const bytes = await Promise.all(
    different.map(async (entry) => entry.memoryBytes ?? (await fileBytes(entry)) * guessedShare),
  );
  const needed = bytes.reduce((a, b) => a + b, 0);
  if (needed > memoryBytes) throw tooLarge(different.map(({ name }) => name).join("|"), needed, memoryBytes);
}

function tooLarge(name: string, needed: number, memoryBytes: number): Refusal {
  return new Refusal({
    status: 503,
    where: `model "${name}"`,
    expected: `at most ${formatBytes(memoryBytes)} (--memory)`,
    found: `about ${formatBytes(needed)}`,
  });
}

async function fileBytes({ name, gguf }: ServedModel): Promise<number> {
  const info = await stat(gguf).catch((cause: unknown) => {
    throw new EspalierError({ where: `model "${name}"`, expected: "its file", found: messageOf(cause), cause });
  });
  return info.size;
}

/** Runs one piece of work after the other. */
function createLock() {
  let last: Promise<unknown> = Promise.resolve();
  return {
    run<T>(work: () => Promise<T>): Promise<T> {
      const result = last.then(work, work);
      last = result.catch(() => {});
      return result;
    },
  };
}

function waitFor(subscribe: (resolve: () => void) => void, signal?: AbortSignal): Promise<void> {
  return abortable(new Promise<void>((resolve) => subscribe(resolve)), signal);
}

/** Gives up waiting when the signal says so; the work itself goes on. */
function abortable<T>(work: Promise<T>, signal?: AbortSignal): Promise<T> {
  if (!signal) return work;
  signal.throwIfAborted();
  return new Promise<T>((resolve, reject) => {
    const stop = () => reject(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}

import { join } from "node:path";
import { collectGarbage, digestJson, EspalierError, hashFile, ignoreEvents, type OnEvent } from "../base/index.js";
import { createEngine, type Engine, rememberForward } from "../engine/index.js";
import { createLlamaCpp, type LlamaCpp } from "../llamacpp/index.js";
import { type Model, openModel } from "../models/index.js";
import { buildSpace, type Space } from "../puzzle/index.js";
import { createRuntime, type Runtime } from "../runtime/index.js";
import { loadTokenizer, type Tokenizer } from "../tokenizer/index.js";
import type { Prices } from "./pricing.js";
import type { Recipe } from "./recipe.js";
import { listFiles, openStore, type Store } from "./store.js";

export interface RunOptions {
  /** Directory of finished stages. Defaults to `.espalier`. */
  store?: string;
  /** Defaults to `cpu`. */
  device?: string;
  /** Defaults to one for each physical core. */
  threads?: number | undefined;
  onEvent?: OnEvent;
  /** Stops the run between two pieces of work; what is finished stays in the store. */
  signal?: AbortSignal;
}

/** What every stage of a run shares, once blocks have their prices. */
export type RunContext = BaseContext & Prices;

export interface BaseContext {
  recipe: Recipe;
  store: Store;
  onEvent: OnEvent;
  signal: AbortSignal;
  runtime: Runtime;
  parent: Model;
  /** Content of the parent's files. */
  parentDigest: string;
  engine: Engine;
  /** The same, for comparing children on the set-aside text: it runs each batch once. */
  reference: Engine;
  tokenizer: Tokenizer;
  space: Space;
  llama: LlamaCpp;
  /** Threads that were asked for. */
  threads?: number | undefined;
  close(): Promise<void>;
}

export async function createContext(recipe: Recipe, options: RunOptions): Promise<BaseContext> {
  const parent = await openModel(recipe.parent);
  try {
    return await contextOf(parent, recipe, options);
  } catch (error) {
    await parent.close();
    throw error;
  }
}

const rememberedBytes = 128 * 2 ** 20;

async function contextOf(parent: Model, recipe: Recipe, options: RunOptions): Promise<BaseContext> {
  const { store = ".espalier", device = "cpu", threads } = options;
  const { onEvent = ignoreEvents, signal = new AbortController().signal } = options;
  for (const message of parent.notices) onEvent({ event: "notice", level: "info", message });
  checkLength(recipe, parent);
  const runtime = await createRuntime({
    device,
    maxSessions: 24,
    // Arenas keep the activations of every session; without them a run takes a fifth less memory and 3 % more time.
    arena: false,
    ...(threads !== undefined && { threads }),
  });
  const engine = createEngine(runtime, parent);
  const llama = createLlamaCpp(threads === undefined ? {} : { threads });
  return {
    recipe,
    threads,
    store: freeingStore(openStore(store), runtime),
    onEvent,
    signal,
    runtime,
    parent,
    parentDigest: await digestModel(recipe.parent),
    engine,
    reference: rememberForward(engine, rememberedBytes),
    tokenizer: loadTokenizer(parent.sidecars.tokenizer, recipe.parent),
    space: buildSpace(parent.config, { targets: recipe.targets, ffnFractions: [1, ...recipe.variants.ffn] }),
    llama,
    async close() {
      await llama.dispose();
      await runtime.dispose();
      await parent.close();
    },
  };
}

/** Sessions keep the activations of their last run, and arrays await their collection; between stages they are let go. */
function freeingStore(store: Store, runtime: Runtime): Store {
  return {
    ...store,
    async produce(request, context) {
      const artifact = await store.produce(request, context);
      if (artifact.cached) return artifact;
      await runtime.dispose();
      collectGarbage();
      return artifact;
    },
  };
}

function checkLength(recipe: Recipe, { config }: Model): void {
  if (recipe.length <= config.maxPositions) return;
  throw new EspalierError({
    where: "length",
    expected: `at most ${config.maxPositions} tokens, what the parent was made for`,
    found: String(recipe.length),
    fix: "give a smaller --length",
    exitCode: 2,
  });
}

/** Digest of a model's files: of all in a directory, or of the one. */
export async function digestModel(path: string): Promise<string> {
  const names = await listFiles(path).catch(() => []);
  if (names.length === 0) return hashFile(path);
  const hashes: Record<string, string> = {};
  for (const name of names) hashes[name] = await hashFile(join(path, name));
  return digestJson(hashes);
}

/** @module Measures what each sub-block of a parent's shape takes in llama.cpp, as the file of costs that budgets read. */
import { rm } from "node:fs/promises";
import { availableParallelism, loadavg } from "node:os";
import { join } from "node:path";
import { digestJson, ignoreEvents, type OnEvent, readJson, writeJsonAtomic } from "../base/index.js";
import { createLlamaCpp, type LlamaCpp, type TimedFile } from "../llamacpp/index.js";
import { type BlockConfig, type ModelConfig, writeGguf } from "../models/index.js";
import {
  type CostTable,
  checkCostTable,
  type MeasuredShape,
  type MeasuredTimes,
  type Scenario,
  type SubBlock,
  subBlockId,
  type WeightType,
} from "../plan/index.js";
import type { Space } from "../puzzle/index.js";
import { fewBlocks, fillerWidth, halfUnit, parentBlock, randomModel, type Unit, wholeUnit } from "./block-files.js";
import { anchorOf, depthsOf, pointsOf, scaled, subtract, timesOf } from "./block-times.js";
import { type MachineFacts, machineFacts } from "./machine-facts.js";
import { chooseThreads, type Threads } from "./step-threads.js";
import { type Artifact, isStored, type Store } from "./store.js";
import { packageVersion } from "./version.js";

export interface MeasureCostsRequest {
  config: ModelConfig;
  /** The sub-blocks to measure: those of the space, and the parent's own. */
  space: Space;
  /** Number type of the weights in use. Defaults to "q8_0". */
  type?: WeightType;
  /** How the model will be used. Defaults to prompts of 512 tokens and 128 more, one at a time. */
  scenarios?: readonly Scenario[];
  /** Timed rounds after one that warms up, at least 2. Defaults to 5. */
  repeats?: number;
  /** Threads of one evaluation. Defaults to what the parent in this type is run with, steps by a trial of their own. */
  threads?: number | undefined;
  /** A sample repeats its work until it has lasted this long, in seconds. Defaults to 0.1. */
  sampleSeconds?: number;
  /** Where to measure. Defaults to llama.cpp on this machine's processor. */
  llama?: Timer;
  /** Whole models to time in the same rounds, by name. Defaults to none. */
  whole?: Readonly<Record<string, readonly BlockConfig[]>>;
  store: Store;
  onEvent: OnEvent;
  signal: AbortSignal;
}

/** What measuring needs of llama.cpp. */
export type Timer = Pick<LlamaCpp, "version" | "timeMany">;

export interface MeasuredCosts {
  table: CostTable;
  /** Times of the whole models that were asked for. */
  whole: Record<string, MeasuredTimes>;
  /** Holds `costs.json`; an input for what is made from the costs. */
  artifact: Artifact;
}

export const defaultScenario: Scenario = { input: 512, output: 128, batch: 1 };

/** Raised when what is measured, or how, changes. */
const version = 5;

/**
 * Measures what the store does not have yet: all files in turns, round by round, so that a drift of the machine touches all
 * alike. Times already measured for the same shape, type, scenario, machine and versions are taken as they are.
 */
export async function measureCosts(request: MeasureCostsRequest): Promise<MeasuredCosts> {
  const own = request.llama ? undefined : createLlamaCpp();
  try {
    const job = await createJob(request, request.llama ?? own!);
    const artifact = await request.store.produce(
      {
        stage: "costs",
        title: "seconds of every sub-block in llama.cpp",
        version,
        options: { units: job.units.map(({ name }) => name), ...job.key, scenarios: job.scenarios },
        inputs: {},
        run: (directory) => runJob(job, directory),
      },
      request,
    );
    const path = join(artifact.directory, "costs.json");
    const { whole, ...table } = (await readJson(path)) as { whole: MeasuredCosts["whole"] };
    return { table: checkCostTable(table, path), whole, artifact };
  } finally {
    await own?.dispose();
  }
}

interface Job extends Required<Omit<MeasureCostsRequest, "config" | "space" | "threads">> {
  parent: ModelConfig;
  machine: MachineFacts;
  threads: Threads;
  versions: CostTable["versions"];
  halves: SubBlock[];
  units: Unit[];
  /** What all times depend on, besides unit and scenario. */
  key: unknown & object;
}

async function createJob(request: MeasureCostsRequest, llama: Timer): Promise<Job> {
  const {
    config: parent,
    space,
    type = "q8_0",
    scenarios = [defaultScenario],
    repeats = 5,
    whole = {},
    sampleSeconds = 0.1,
  } = request;
  const machine = await machineFacts();
  const { package: binding, llamaCpp } = await llama.version({ signal: request.signal });
  const versions = { "llama.cpp": llamaCpp, "node-llama-cpp": binding };
  const depth = scenarios[0]!.input;
  const threads = await chooseThreads({ ...request, config: parent, type, depth, llama });
  const options = { type, cacheBytes: machine.cacheBytes };
  const halves = halvesOf(parent, space);
  const base = parentBlock(parent);
  const units = [
    halfUnit(parent, { part: "ffn", config: { kind: "swiglu", width: fillerWidth } }, options),
    ...halves.filter(isTimed).map((half) => halfUnit(parent, half, options)),
    wholeUnit(
      parent,
      fixedName,
      Array.from({ length: fewBlocks(parent, options) }, () => base),
      options,
    ),
    ...Object.entries({ [parentName]: parent.blocks, ...whole }).map(([name, blocks]) =>
      wholeUnit(parent, name, [...blocks], options),
    ),
  ];
  const { blocks: _blocks, modelType: _modelType, family: _family, ...shape } = parent;
  const { processor, platform } = machine;
  const key = {
    espalier: packageVersion(),
    versions,
    machine: { processor, platform, ...threads },
    type,
    shape,
    repeats,
    sampleSeconds,
  };
  return {
    ...request,
    parent,
    llama,
    machine,
    threads,
    versions,
    halves,
    units,
    key,
    type,
    scenarios: [...scenarios],
    repeats,
    sampleSeconds,
    whole,
  };
}

const fixedName = "model of few blocks";
const parentName = "parent";
const fillerName = `ffn swiglu ${fillerWidth}`;

/** Every half that may stand somewhere, each once; those that are nothing left out. */
function halvesOf(parent: ModelConfig, { layers }: Space): SubBlock[] {
  const halves = new Map<string, SubBlock>();
  const add = (half: SubBlock) => halves.set(`${half.part} ${subBlockId(half)}`, half);
  const { attention, ffn } = parentBlock(parent);
  add({ part: "attention", config: attention });
  for (const layer of layers) for (const { config } of layer.attention) add({ part: "attention", config });
  add({ part: "ffn", config: ffn });
  for (const layer of layers) for (const { config } of layer.ffn) add({ part: "ffn", config });
  return [...halves.values()].filter(({ config }) => config.kind !== "none");
}

/** A linear feed-forward is held as a linear attention, whose time it has; the filler is always timed. */
function isTimed(half: SubBlock): boolean {
  return !(half.part === "ffn" && half.config.kind === "linear") && nameOf(half) !== fillerName;
}

function nameOf(half: SubBlock): string {
  const id = subBlockId(half);
  return half.config.kind === "linear" ? "attention linear" : `${half.part} ${id}`;
}

async function runJob(job: Job, directory: string): Promise<void> {
  const missing: Wanted[] = [];
  for (const unit of job.units) {
    for (const scenario of job.scenarios) {
      if (!(await isStored(job.store, entryRequest(job, { unit, scenario })))) missing.push({ unit, scenario });
    }
  }
  if (missing.length > 0) warnOfLoad(job);
  for (const group of groupBy(missing, Math.min(mostBytesAtOnce, job.machine.memoryBytes / 3)))
    await measureGroup(job, group, directory);
  const times = new Map<string, MeasuredTimes>();
  for (const unit of job.units) times.set(unit.name, await readUnit(job, unit));
  await writeJsonAtomic(join(directory, "costs.json"), {
    ...tableOf(job, times),
    whole: Object.fromEntries(Object.keys(job.whole).map((name) => [name, times.get(name)!])),
  });
}

/** llama.cpp's threads wait for each other all the time: one that has to share its core holds up all. */
function warnOfLoad({ onEvent }: Job): void {
  const [load] = loadavg();
  if (load! < availableParallelism() / 2) return;
  const message = `the machine is busy (load ${load!.toFixed(1)}): measured times will be too long and uneven; stop what runs on it`;
  onEvent({ event: "notice", level: "warning", message });
}

/** What is timed in turns is in memory together. */
const mostBytesAtOnce = 1.5 * 2 ** 30;

interface Wanted {
  unit: Unit;
  scenario: Scenario;
}

/** Units with their scenarios, in groups of at most so many bytes of weights. */
function groupBy(wanted: readonly Wanted[], bytes: number): Map<Unit, Scenario[]>[] {
  const byUnit = new Map<Unit, Scenario[]>();
  for (const { unit, scenario } of wanted) byUnit.set(unit, [...(byUnit.get(unit) ?? []), scenario]);
  const groups: Map<Unit, Scenario[]>[] = [];
  let room = 0;
  for (const [unit, scenarios] of byUnit) {
    if (groups.length === 0 || unit.bytes > room) {
      groups.push(new Map());
      room = bytes;
    }
    groups.at(-1)!.set(unit, scenarios);
    room -= unit.bytes;
  }
  return groups;
}

async function measureGroup(job: Job, group: ReadonlyMap<Unit, Scenario[]>, directory: string): Promise<void> {
  const { llama, threads, repeats, onEvent, signal } = job;
  const paths: string[] = [];
  try {
    const files: TimedFile[] = [];
    const written = [...group.keys()].flatMap(({ files }) => files);
    for (const [unit, scenarios] of group) {
      for (const { name, config } of unit.files) {
        onEvent({ event: "progress", stage: "files", done: files.length, total: written.length, unit: "written" });
        const path = join(directory, `${name}.gguf`);
        paths.push(path);
        await writeGguf(randomModel(config), path, { type: job.type, overwrite: true, signal });
        files.push({ gguf: path, ...pointsOf(unit, scenarios), stepThreads: threads.stepThreads });
      }
    }
    const samples = await llama.timeMany(files, {
      threads: threads.threads,
      repeats,
      sampleSeconds: job.sampleSeconds,
      signal,
      onProgress: (done, total) => onEvent({ event: "progress", stage: "costs", done, total, unit: "samples" }),
    });
    let at = 0;
    for (const [unit, scenarios] of group) {
      const own = samples.slice(at, at + unit.files.length);
      at += unit.files.length;
      for (const scenario of scenarios) await storeEntry(job, { unit, scenario }, timesOf(unit, scenarios, own));
    }
  } finally {
    for (const path of paths) await rm(path, { force: true });
  }
}

function entryRequest(job: Job, { unit, scenario }: Wanted) {
  const files = unit.files.map(({ config }) => config.blocks);
  return {
    stage: "cost",
    version,
    options: { ...job.key, unit: digestJson(files), copies: unit.copies, scenario },
    inputs: {},
  };
}

const entryFile = "times.json";
const quiet = { onEvent: ignoreEvents };

async function storeEntry(job: Job, wanted: Wanted, times: MeasuredTimes): Promise<void> {
  const { unit, scenario } = wanted;
  const depths = new Set(depthsOf(unit, scenario).map(({ depth }) => depth));
  const own: MeasuredTimes = {
    prefill: times.prefill.filter(({ tokens }) => tokens === scenario.input),
    decode: times.decode.filter(({ batch, depth }) => batch === scenario.batch && depths.has(depth)),
  };
  await job.store.produce(
    { ...entryRequest(job, wanted), run: (directory) => writeJsonAtomic(join(directory, entryFile), own) },
    { ...quiet, signal: job.signal },
  );
}

/** All scenarios' times of a unit; where a token costs the same at every depth, that is said for each depth. */
async function readUnit(job: Job, unit: Unit): Promise<MeasuredTimes> {
  const prefill = new Map<number, MeasuredTimes["prefill"][number]>();
  const decode = new Map<string, MeasuredTimes["decode"][number]>();
  for (const scenario of job.scenarios) {
    const run = () => Promise.reject(new Error("internal: times were not stored"));
    const { directory } = await job.store.produce(
      { ...entryRequest(job, { unit, scenario }), run },
      { ...quiet, signal: job.signal },
    );
    const times = (await readJson(join(directory, entryFile))) as MeasuredTimes;
    for (const entry of times.prefill) prefill.set(entry.tokens, prefill.get(entry.tokens) ?? entry);
    const end = unit.readsCache ? [] : [{ ...times.decode[0]!, depth: scenario.input + scenario.output }];
    for (const entry of [...times.decode, ...end]) {
      const key = `${entry.batch} ${entry.depth}`;
      decode.set(key, decode.get(key) ?? entry);
    }
  }
  return { prefill: [...prefill.values()], decode: [...decode.values()] };
}

function tableOf(job: Job, times: ReadonlyMap<string, MeasuredTimes>): CostTable {
  const { parent, machine, threads, versions, type } = job;
  const { hiddenSize, heads, headDim, vocabSize } = parent;
  const { processor, memoryBytes, platform } = machine;
  const filler = times.get(fillerName)!;
  const halves = job.halves.map((half) => {
    const measured = times.get(nameOf(half))!;
    // Attention is timed with a filler behind it.
    const net = half.config.kind !== "swiglu" ? subtract(measured, [filler]) : measured;
    return { part: half.part, id: subBlockId(half), config: half.config, ...net } as MeasuredShape;
  });
  const copies = fewBlocks(parent, { type, cacheBytes: machine.cacheBytes });
  const few = Array.from({ length: copies }, () => parentBlock(parent));
  const [fewTimes, wholeTimes] = [times.get(fixedName)!, times.get(parentName)!];
  const timesOfBlocks = (blocks: readonly BlockConfig[]) => blocks.flatMap((block) => halvesIn(halves, block));
  const anchor = anchorOf({ few: fewTimes, whole: wholeTimes }, [few, parent.blocks].map(timesOfBlocks));
  return {
    kind: "espalier-costs",
    espalier: packageVersion(),
    machine: { processor, ...threads, memoryBytes, platform },
    versions,
    type,
    parent: { hiddenSize, heads, headDim, vocabSize },
    shapes: halves.map((half) => ({ ...half, ...scaled(half, anchor) })),
    filler: scaled(filler, anchor),
    fixed: subtract(
      fewTimes,
      timesOfBlocks([parentBlock(parent)]).map((half) => scaled(half, anchor)),
      copies,
    ),
    anchor,
  };
}

function halvesIn(shapes: readonly MeasuredShape[], { attention, ffn }: BlockConfig): MeasuredShape[] {
  const wanted: SubBlock[] = [
    { part: "attention", config: attention },
    { part: "ffn", config: ffn },
  ];
  return wanted.flatMap((half) => shapes.find(({ part, id }) => part === half.part && id === subBlockId(half)) ?? []);
}

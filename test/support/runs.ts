import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { digestJson, type Event, sha256 } from "../../src/base/index.js";
import { repositoryPath } from "../../src/base/testing.js";

/** Where a run keeps its stages and writes its result. */
export interface RunPlace {
  store: string;
  out: string;
}

export function runPlace(directory: string): RunPlace {
  return { store: join(directory, "store"), out: join(directory, "out") };
}

export interface StartedRun {
  child: ChildProcess;
  /** Resolves when an event is seen for which `wanted` holds; false when the run ends before. */
  seen(wanted: (event: Event) => boolean): Promise<boolean>;
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null; errors: string }>;
  /** SIGKILL to the whole process group, then waits until nothing that the run had started is left. */
  kill(): Promise<void>;
}

/** Starts `espalier run` in a process group of its own. */
export function startRun(recipe: string, { store, out }: RunPlace): StartedRun {
  const args = ["dist/cli/main.js", "run", recipe, "--store", store, "--out", out, "--threads", "2", "--json"];
  const child = spawn(process.execPath, args, {
    cwd: repositoryPath(""),
    detached: true,
    stdio: ["ignore", "ignore", "pipe"],
  });
  const listeners = new Set<(event: Event) => void>();
  const errors: string[] = [];
  createInterface({ input: child.stderr! }).on("line", (line) => {
    const event = parseEvent(line);
    if (!event) errors.push(line);
    else for (const listen of listeners) listen(event);
  });
  const ended = new Promise<Awaited<StartedRun["ended"]>>((resolve) => {
    child.once("close", (code, signal) => resolve({ code, signal, errors: errors.join("\n") }));
  });
  return {
    child,
    ended,
    seen: (wanted) =>
      Promise.race([
        new Promise<boolean>((resolve) => listeners.add((event) => void (wanted(event) && resolve(true)))),
        ended.then(() => false),
      ]),
    async kill() {
      const family = descendants(child.pid!);
      if (child.exitCode === null) process.kill(-child.pid!, "SIGKILL");
      await ended;
      // llama.cpp runs in a group of its own, so that Ctrl-C leaves it to its parent; it ends when its parent is gone.
      for (const pid of family) await gone(pid);
    },
  };
}

function parseEvent(line: string): Event | undefined {
  if (!line.startsWith('{"event"')) return undefined;
  return JSON.parse(line) as Event;
}

/** Processes below one, where the system tells (Linux). */
function descendants(pid: number): number[] {
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean);
    return children.map(Number).flatMap((child) => [child, ...descendants(child)]);
  } catch {
    return [];
  }
}

async function gone(pid: number): Promise<void> {
  for (let waited = 0; waited < 20_000; waited += 50) {
    try {
      process.kill(pid, 0);
    } catch {
      return;
    }
    await sleep(50);
  }
  throw new Error(`process ${pid} outlived the run that started it`);
}

export function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/**
 * What a clock, a meter or the operating system said. Everything else that a run writes is a function of the recipe,
 * the model and the texts, and has the same bytes however often the run was stopped.
 */
export const measurements: { files: RegExp; keys: readonly string[] }[] = [
  { files: /\/search-[^/]*\/search\.json$/, keys: ["seconds"] },
  { files: /\/probe-[^/]*\/probe\.json$/, keys: ["seconds", "rate"] },
  { files: /\/speed-[^/]*\/speed\.json$/, keys: ["prefill", "decode"] },
  { files: /out\/result\.json$/, keys: ["seconds", "peakRssBytes", "cached", "speed", "path", "out", "policy"] },
];

/** Not compared at all: what a stage cost, the page with those numbers, and where the output goes. */
const left = /\/(cost\.json|report\.html|recipe\.json)$/;

/** Digest of every file of the store and the output, measurements left out. */
export function digestRun({ store, out }: RunPlace): Record<string, string> {
  const digests: Record<string, string> = {};
  for (const [prefix, directory] of [
    ["store", store],
    ["out", out],
  ] as const) {
    for (const name of filesBelow(directory)) {
      const file = `${prefix}/${name}`;
      if (!left.test(file)) digests[file] = digestOf(file, readFileSync(join(directory, name)));
    }
  }
  return digests;
}

function digestOf(file: string, bytes: Uint8Array): string {
  const keys = measurements.find(({ files }) => files.test(file))?.keys;
  if (keys) return digestJson(without(parse(bytes), (key) => keys.includes(key)));
  // A manifest holds the digests of its stage's files: those of measurements differ with them.
  if (file.endsWith("/manifest.json"))
    return digestJson(without(parse(bytes), (key) => ["search.json", "probe.json", "speed.json"].includes(key)));
  return sha256(bytes);
}

function parse(bytes: Uint8Array): unknown {
  return JSON.parse(new TextDecoder().decode(bytes));
}

function without(value: unknown, dropped: (key: string) => boolean): unknown {
  if (Array.isArray(value)) return value.map((item) => without(item, dropped));
  if (value === null || typeof value !== "object") return value;
  const kept = Object.entries(value).filter(([key]) => !dropped(key));
  return Object.fromEntries(kept.map(([key, inner]) => [key, without(inner, dropped)]));
}

/** Names of all files below a directory, sorted; none where it does not exist yet. */
export function filesBelow(directory: string): string[] {
  try {
    return readdirSync(directory, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1))
      .sort();
  } catch {
    return [];
  }
}

export interface KillOptions {
  recipe: string;
  place: () => RunPlace;
  kills: number;
  /** Of a whole run. */
  seconds: number;
  /** Numbers in [0, 1). */
  random: () => number;
  /** Told the seconds that the run had worked. */
  onKill?: (seconds: number) => void;
}

/**
 * Kills runs of a recipe at random moments after their start and resumes them, in as many places as it takes for so many
 * kills; every place is run to its end.
 */
export async function killAndResume({
  recipe,
  place,
  kills,
  seconds,
  random,
  onKill,
}: KillOptions): Promise<RunPlace[]> {
  const places: RunPlace[] = [];
  for (let killed = 0; killed < kills; ) {
    const current = place();
    places.push(current);
    for (let whole = false; !whole; ) {
      const run = startRun(recipe, current);
      await run.seen(({ event }) => event === "stage-start");
      // The even share of a run on average.
      const pause = killed < kills ? (random() * 2000 * seconds) / kills : undefined;
      const ended = await (pause === undefined ? run.ended : Promise.race([run.ended, sleep(pause)]));
      if (ended) {
        if (ended.code !== 0) throw new Error(`the run failed: ${ended.errors}`);
        whole = true;
        continue;
      }
      await run.kill();
      onKill?.(pause! / 1000);
      killed++;
    }
  }
  return places;
}

export interface StageKillOptions {
  recipe: string;
  place: RunPlace;
  /** Stages of a whole run in their order, and what each took. */
  stages: readonly { name: string; seconds: number }[];
  /** Numbers in [0, 1). */
  random: () => number;
  onKill?: (stage: string, seconds: number) => void;
}

/** Kills one run in every stage, at a random moment of it, resumes it each time, and lets it end. */
export async function killInEachStage({ recipe, place, stages, random, onKill }: StageKillOptions): Promise<void> {
  for (const { name, seconds } of stages) {
    const run = startRun(recipe, place);
    // Found in the store where the stage before it ended between its kill and its last file.
    const begun = await run.seen((event) => event.event === "stage-start" && event.stage === name);
    const pause = random() * seconds;
    if (begun) await Promise.race([run.ended, sleep(1000 * pause)]);
    await run.kill();
    onKill?.(name, pause);
  }
  const { code, errors } = await startRun(recipe, place).ended;
  if (code !== 0) throw new Error(`the run failed: ${errors}`);
}

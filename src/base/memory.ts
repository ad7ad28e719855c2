import { readdirSync, readFileSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

export interface RssMeter {
  /** Highest resident set of this process and its descendants seen since the meter was made or last reset, in bytes. */
  peakBytes(): number;
  /** Starts a new peak; returns the one that ends. */
  reset(): number;
  stop(): void;
}

/**
 * Samples the resident memory of the whole process tree. Shared pages are counted once for each process, so the
 * figure is an upper bound. Where /proc is missing, only this process is seen.
 */
export function createRssMeter({ intervalMs = 100 }: { intervalMs?: number } = {}): RssMeter {
  let peak = treeRssBytes();
  const sample = () => {
    peak = Math.max(peak, treeRssBytes());
  };
  const timer = setInterval(sample, intervalMs);
  timer.unref();
  return {
    peakBytes() {
      sample();
      return peak;
    },
    reset() {
      sample();
      const ended = peak;
      peak = treeRssBytes();
      return ended;
    },
    stop: () => clearInterval(timer),
  };
}

let collect: (() => void) | undefined;

/**
 * Frees the arrays that nobody holds any more. V8 puts that off while its own heap is small, however large the arrays are
 * that hang on it; between two stages it pays to ask.
 */
export function collectGarbage(): void {
  if (!collect) {
    setFlagsFromString("--expose-gc");
    collect = runInNewContext("gc") as () => void;
  }
  collect();
}

export function treeRssBytes(): number {
  let total = process.memoryUsage.rss();
  if (process.platform !== "linux") return total;
  for (const pid of descendants(process.pid)) total += rssOf(pid);
  return total;
}

function descendants(pid: number): number[] {
  const direct = readNames(`/proc/${pid}/task`).flatMap((thread) =>
    readOrEmpty(`/proc/${pid}/task/${thread}/children`).split(" ").filter(Boolean).map(Number),
  );
  return direct.flatMap((child) => [child, ...descendants(child)]);
}

function rssOf(pid: number): number {
  const kib = /VmRSS:\s+(\d+) kB/.exec(readOrEmpty(`/proc/${pid}/status`))?.[1];
  return kib === undefined ? 0 : Number(kib) * 1024;
}

function readNames(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

// A process may end between being listed and being read.
function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

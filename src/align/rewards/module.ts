/**
 * @module Rewards of the user's own: an ES module whose default export judges one answer, run in worker threads of
 * limited time and memory, so that neither a loop without end nor a leak takes the training with it.
 */
import { isAbsolute, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { EspalierError, messageOf } from "../../base/index.js";
import { describeItem, type RewardFunction, type RewardItem, type RewardScore } from "./types.js";

export interface ModuleRewardOptions {
  /** Defaults to the module's file name. */
  name?: string;
  /** Seconds that one answer, or the import of the module, may take. Defaults to 10. */
  timeoutSeconds?: number;
  /** Memory of a worker's JavaScript objects, MiB. Defaults to 256. */
  memoryMiB?: number;
  /** Workers, each with one answer at a time. Defaults to 1. */
  workers?: number;
}

/**
 * @example
 * // brevity.js: export default async (item) => 1 / (1 + item.answer.length);
 * const brevity = createModuleReward("brevity.js", { timeoutSeconds: 2 });
 */
export function createModuleReward(path: string, options: ModuleRewardOptions = {}): RewardFunction {
  const url = pathToFileURL(isAbsolute(path) ? path : resolve(path)).href;
  return createWorkerReward(url, { name: path.split(/[\\/]/).at(-1)!, ...options });
}

export interface RegexRewardOptions extends Pick<ModuleRewardOptions, "timeoutSeconds"> {
  pattern: string;
  /** Of `RegExp`. Defaults to none. */
  flags?: string;
  /** Score of a match. Defaults to 1. */
  match?: number;
  /** Score without one. Defaults to 0. */
  noMatch?: number;
}

/** Whether a pattern matches somewhere. In a worker, because some patterns take forever on some texts. */
export function regexReward({
  pattern,
  flags = "",
  match = 1,
  noMatch = 0,
  ...limits
}: RegexRewardOptions): RewardFunction {
  checkPattern(pattern, flags);
  const [source, scores] = [JSON.stringify([pattern, flags]), JSON.stringify([noMatch, match])];
  const code = `export default ({ answer }) => ${scores}[Number(new RegExp(...${source}).test(answer))];`;
  return createWorkerReward(`data:text/javascript,${encodeURIComponent(code)}`, {
    name: `/${pattern}/${flags}`,
    ...limits,
  });
}

function checkPattern(pattern: string, flags: string): void {
  try {
    new RegExp(pattern, flags);
  } catch (cause) {
    const found = messageOf(cause);
    throw new EspalierError({ where: "regex reward", expected: "a regular expression", found, exitCode: 2, cause });
  }
}

/** What a worker says about one answer. */
type Reply = { score: RewardScore } | { error: string };

function createWorkerReward(url: string, options: ModuleRewardOptions & { name: string }): RewardFunction {
  const { name, workers = 1, ...limits } = options;
  const idle: JudgeWorker[] = [];
  return {
    name,
    async score(items, signal) {
      const scores = new Array<RewardScore>(items.length).fill(null);
      const stop = new AbortController();
      const signals = AbortSignal.any([stop.signal, ...(signal ? [signal] : [])]);
      let next = 0;
      const judgeNext = async (): Promise<void> => {
        const worker = idle.pop() ?? startWorker(url, limits);
        try {
          while (next < items.length) {
            const index = next++;
            scores[index] = await judge(worker, name, items[index]!, index, signals);
          }
          idle.push(worker);
        } catch (error) {
          stop.abort(error);
          await worker.end();
          throw error;
        }
      };
      const count = Math.min(workers, items.length);
      const outcomes = await Promise.allSettled(Array.from({ length: count }, judgeNext));
      signal?.throwIfAborted();
      if (stop.signal.aborted) throw stop.signal.reason;
      for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
      return scores;
    },
    async dispose() {
      await Promise.all(idle.splice(0).map((worker) => worker.end()));
    },
  };
}

async function judge(
  worker: JudgeWorker,
  name: string,
  item: RewardItem,
  index: number,
  signal: AbortSignal,
): Promise<RewardScore> {
  const where = `reward ${name}, ${describeItem(item, index)}`;
  const reply = await worker.ask(item, where, signal);
  if ("error" in reply) throw new EspalierError({ where, expected: "a score", found: reply.error });
  const { score } = reply;
  if (score === null || Number.isFinite(score)) return score;
  const found = score === undefined ? "nothing" : String(score);
  throw new EspalierError({ where, expected: "a finite number, or null where it cannot judge", found });
}

interface JudgeWorker {
  ask(item: RewardItem, where: string, signal: AbortSignal): Promise<Reply>;
  end(): Promise<void>;
}

/** The worker's own code: plain JavaScript, so that it runs the same from sources and from the package. */
const workerCode = `
const { parentPort, workerData } = require("node:worker_threads");
const loading = import(workerData.url);
loading.catch(() => {});
parentPort.on("message", async (item) => {
  try {
    const judge = (await loading).default;
    if (typeof judge !== "function") throw new Error("the module has no function as its default export");
    const score = await judge(item);
    parentPort.postMessage({ score: typeof score === "number" || score === null ? score : score === undefined ? undefined : String(score) });
  } catch (error) {
    parentPort.postMessage({ error: error instanceof Error ? error.message : String(error) });
  }
});
`;

function startWorker(
  url: string,
  { timeoutSeconds = 10, memoryMiB = 256 }: Pick<ModuleRewardOptions, "timeoutSeconds" | "memoryMiB">,
): JudgeWorker {
  const worker = new Worker(workerCode, {
    eval: true,
    workerData: { url },
    resourceLimits: { maxOldGenerationSizeMb: memoryMiB },
    execArgv: [],
  });
  worker.unref();
  let answer: (reply: Reply) => void = () => {};
  let fail: (found: string) => void = () => {};
  worker.on("message", (reply: Reply) => answer(reply));
  worker.on("error", (error) => fail(describeEnd(error, memoryMiB)));
  worker.on("exit", (code) => fail(`the end of its worker, code ${code}`));
  return {
    ask(item, where, signal) {
      return new Promise((done, refuse) => {
        // A score that came while this thread was busy is read before the time is called up.
        const timer = setTimeout(() => setImmediate(() => fail("none; it was ended")), timeoutSeconds * 1000);
        const leave = () => {
          clearTimeout(timer);
          fail = () => {};
          signal.removeEventListener("abort", abort);
        };
        const abort = () => {
          leave();
          refuse(signal.reason);
        };
        answer = (reply) => {
          leave();
          done(reply);
        };
        fail = (found) => {
          leave();
          refuse(new EspalierError({ where, expected: `a score within ${timeoutSeconds} s`, found }));
        };
        if (signal.aborted) return abort();
        signal.addEventListener("abort", abort);
        worker.postMessage(item);
      });
    },
    async end() {
      fail = () => {};
      await worker.terminate();
    },
  };
}

function describeEnd(error: unknown, memoryMiB: number): string {
  const outOfMemory = (error as NodeJS.ErrnoException).code === "ERR_WORKER_OUT_OF_MEMORY";
  return outOfMemory ? `more than ${memoryMiB} MiB of memory in use` : messageOf(error);
}

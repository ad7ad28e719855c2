/**
 * @module Peak memory of training, measured and as `espalier plan --training` says it: each method takes a few steps in a
 * process of its own.
 *
 * `npm run bench -- training-memory [BATCH] [LENGTH]`: stories260K and SmolLM2-135M of the optional test data, 2 x 256.
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";
import { formatBytes } from "../src/base/index.js";
import { repositoryPath, sharedPath } from "../src/base/testing.js";
import { openModel } from "../src/models/index.js";
import { shapeOf, type TrainingMethod, trainingMemory } from "../src/plan/index.js";
import type { Bench } from "./main.js";

/** What the process of one method is told. */
export interface TrainingTask {
  path: string;
  method: MeasuredMethod;
  batch: number;
  length: number;
}

export type MeasuredMethod = Extract<TrainingMethod, "full" | "lora" | "distil" | "distil-layered" | "reward">;

interface Row {
  model: string;
  method: MeasuredMethod;
  measuredBytes: number;
  plannedBytes: number;
  /** Planned over measured, less one. */
  error: number;
}

const methods: readonly MeasuredMethod[] = ["full", "lora", "distil", "distil-layered", "reward"];

export const trainingMemoryBench: Bench = async ({ json, args }) => {
  const [batch, length] = [Number(args[0] ?? 2), Number(args[1] ?? 256)];
  const smol = sharedPath("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
  const paths = [repositoryPath("models/stories260K"), ...(smol === undefined ? [] : [smol])];
  const rows: Row[] = [];
  for (const path of paths) {
    const { config, sidecars, close } = await openModel(path);
    // A child of its parent's size, so that one model is enough.
    const planned = trainingMemory(shapeOf(config), { batch, length, share: 1 });
    for (const method of methods) {
      const measuredBytes = await measure({ path, method, batch, length });
      const plannedBytes = planned.find((own) => own.method === method && own.precision === "f32")!.totalBytes;
      rows.push({ model: sidecars.name, method, measuredBytes, plannedBytes, error: plannedBytes / measuredBytes - 1 });
      process.stderr.write(`${renderRow(rows.at(-1)!)}\n`);
    }
    await close();
  }
  process.stdout.write(json ? `${JSON.stringify(rows, null, 2)}\n` : `${rows.map(renderRow).join("\n")}\n`);
};

async function measure(task: TrainingTask): Promise<number> {
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
  const path = fileURLToPath(new URL("./training-memory-run.ts", import.meta.url));
  const child = fork(path, [JSON.stringify(task)], { execArgv: ["--import", tsx] });
  const [bytes] = await once(child, "message");
  return bytes as number;
}

function renderRow({ model, method, measuredBytes, plannedBytes, error }: Row): string {
  const percent = `${error < 0 ? "" : "+"}${(100 * error).toFixed(0)} %`;
  return `${model.padEnd(28)} ${method.padEnd(15)} measured ${formatBytes(measuredBytes)}, planned ${formatBytes(plannedBytes)}, ${percent}`;
}

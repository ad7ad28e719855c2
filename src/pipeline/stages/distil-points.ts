/**
 * @module Measuring a child while it is trained, on sequences that score blocks: set aside from training, and no part of
 * those that the finished child is measured on. The weights of the best state so far lie on disk.
 */
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  fileExists,
  mean,
  meanInterval,
  openFile,
  readJson,
  writeFileAtomic,
  writeJsonAtomic,
} from "../../base/index.js";
import { createEngine, type Engine, scoreSequences } from "../../engine/index.js";
import { type Model, overlayModel } from "../../models/index.js";
import type { Runtime } from "../../runtime/index.js";
import type { Parameters } from "../../train/index.js";
import { choosePoint, type DistilPoint } from "../distil-box.js";

export interface PointsRequest {
  runtime: Runtime;
  /** Engine of the parent. */
  teacher: Engine;
  /** The child as it was before training. */
  model: Model;
  /** Under training. */
  parameters: Parameters;
  sequences: readonly Int32Array[];
  tokensPerStep: number;
  directory: string;
  signal: AbortSignal;
}

export interface Points {
  /** Measures the child after a step, unless an interrupted run has. */
  measure(step: number): Promise<void>;
  all(): Promise<DistilPoint[]>;
  /** Puts the weights of the state to keep in the place of the last one's. */
  keepBest(): Promise<ReturnType<typeof choosePoint>>;
}

/** Files that are gone when training is over. */
export const pointFile = /^(point-\d+\.json|best-\d+\.f32)$/;

export function createPoints(request: PointsRequest): Points {
  const { model, parameters, tokensPerStep, directory } = request;
  const reference = rememberForward(request.teacher);
  const pointPath = (step: number) => join(directory, `point-${step}.json`);
  const bestPath = (step: number) => join(directory, `best-${step}.f32`);

  const all = async (): Promise<DistilPoint[]> => {
    const steps = (await readdir(directory)).flatMap((name) => /^point-(\d+)\.json$/.exec(name)?.[1] ?? []).map(Number);
    const points = steps.sort((a, b) => a - b).map((step) => readJson(pointPath(step)) as Promise<DistilPoint>);
    return Promise.all(points);
  };

  return {
    all,
    async measure(step) {
      if (await fileExists(pointPath(step))) return;
      const klBySequence = await klOf(request, reference);
      const before = await all();
      const isBest = before.every((point) => mean(klBySequence) <= mean(point.klBySequence));
      // The start is at hand anyway. The weights come before the point, so that a point is never without them.
      if (isBest && step > 0) await writeFileAtomic(bestPath(step), bytesOf(parameters.flat));
      const kl = meanInterval(klBySequence);
      await writeJsonAtomic(pointPath(step), { step, tokens: step * tokensPerStep, kl, klBySequence });
      if (!isBest) return;
      for (const point of before) await rm(bestPath(point.step), { force: true });
    },
    async keepBest() {
      const points = await all();
      const choice = choosePoint(points);
      if (choice.kept === points.at(-1)) return choice;
      if (choice.kept.step > 0) await readInto(bestPath(choice.kept.step), bytesOf(parameters.flat));
      else for (const [name, { data }] of Object.entries(parameters.tensors)) data.set(await weightOf(model, name));
      return choice;
    },
  };
}

async function klOf({ runtime, model, parameters, sequences, signal }: PointsRequest, reference: Engine) {
  const child = createEngine(runtime, overlayModel(model, model.config, new Map(Object.entries(parameters.tensors))));
  const scores = await scoreSequences(child, sequences, { reference, signal });
  return scores.map(({ kl }) => kl!);
}

/** The parent says the same of the same sequences every time: its last hidden states are kept. */
function rememberForward(engine: Engine): Engine {
  const known = new Map<string, ReturnType<Engine["forward"]>>();
  return {
    ...engine,
    forward(ids, options) {
      const key = ids.map((row) => Array.from(row).join()).join(";");
      const result = known.get(key) ?? engine.forward(ids, options);
      known.set(key, result);
      result.catch(() => known.delete(key));
      return result;
    },
  };
}

async function weightOf(model: Model, name: string): Promise<Float32Array> {
  return (await model.weights.read(name)).data as Float32Array;
}

function bytesOf(array: Float32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

const pieceBytes = 1 << 24;

async function readInto(path: string, target: Uint8Array): Promise<void> {
  const source = await openFile(path);
  for (let at = 0; at < target.byteLength; at += pieceBytes) {
    target.set(await source.read(at, Math.min(pieceBytes, target.byteLength - at)), at);
  }
  await source.close();
}

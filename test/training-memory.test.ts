/** What plan counts of a training step, against the values that are alive in the step's own graph. */
import { expect, test } from "vitest";
import { repositoryPath } from "../src/base/testing.js";
import type { Graph, Value } from "../src/graph/index.js";
import { type ModelConfig, modelWeights, openModel } from "../src/models/index.js";
import { shapeOf, trainingMemory } from "../src/plan/index.js";
import { buildStep, createLayout, deferScatters, languageModelLoss } from "../src/train/index.js";

const model = await openModel(repositoryPath("models/stories260K"));
await model.close();
const { config } = model;
const uneven: ModelConfig = {
  ...config,
  family: "deci",
  blocks: config.blocks.map(({ attention, ffn }, layer) => ({
    attention: layer === 2 ? { kind: "none" } : attention,
    ffn: layer === 1 ? { kind: "linear" } : layer === 3 ? { kind: "swiglu", width: 64 } : ffn,
  })),
};

test.each([
  ["short rows", config, 4, 256],
  ["rows longer than a chunk of queries", config, 1, 1024],
  ["blocks that differ", uneven, 8, 128],
] as const)("%s: within a tenth", (_, shaped, batch, length) => {
  const layout = createLayout(modelWeights(shaped));
  const loss = languageModelLoss(shaped, { batch, length });
  const alive = peakBytes(deferScatters(buildStep("step", { layout }, loss)));
  const [full] = trainingMemory(shapeOf(shaped), { batch, length });
  const counted = full!.activationBytes + Math.max(full!.logitsBytes, full!.sweepBytes);
  expect(counted / alive).toBeGreaterThan(0.9);
  expect(counted / alive).toBeLessThan(1.1);
});

const viewKinds: readonly string[] = ["reshape", "after", "stopGradient", "withGradient"];

/** The most that nodes in their order hold at once, of what is neither given nor a result. */
function peakBytes({ nodes, outputs }: Graph): number {
  const source = new Map(
    nodes.flatMap((node) => (viewKinds.includes(node.kind) ? [[node.outputs[0]!.id, node.inputs[0]!.id]] : [])) as [
      number,
      number,
    ][],
  );
  const rootOf = (id: number): number => (source.has(id) ? rootOf(source.get(id)!) : id);
  const lastReader = new Map(nodes.flatMap(({ inputs }, i) => inputs.map(({ id }) => [rootOf(id), i] as const)));
  const results = new Set(outputs.map(({ value }) => rootOf(value.id)));
  const held = new Map<number, number>();
  let [alive, peak] = [0, 0];
  nodes.forEach(({ inputs, outputs: made }, i) => {
    for (const value of made) {
      if (source.has(value.id) || results.has(value.id) || !lastReader.has(value.id)) continue;
      held.set(value.id, bytesOf(value));
      alive += bytesOf(value);
    }
    peak = Math.max(peak, alive);
    for (const id of new Set(inputs.map((value) => rootOf(value.id)))) {
      if (lastReader.get(id) !== i) continue;
      alive -= held.get(id) ?? 0;
      held.delete(id);
    }
  });
  return peak;
}

function bytesOf({ dtype, shape }: Value): number {
  return shape.reduce((a, b) => a * b, dtype === "i64" ? 8 : 4);
}

import { describe, expect, test } from "vitest";
import { createRng } from "../base/index.js";
import { createGraph } from "../graph/index.js";
import { buildModel, type ModelConfig, modelWeights, positionsFrom, rotaryTables } from "../models/index.js";
import { gqa, swiglu, testConfig } from "../models/testing.js";
import { createRuntime, type Runtime } from "../runtime/index.js";
import { type F32Tensor, i64Tensor } from "../tensor/index.js";
import {
  createParameters,
  createStep,
  distillationBatch,
  layeredDistillation,
  modelDistillationLoss,
  type Parameters,
  parentPrefix,
  type Teacher,
} from "./index.js";

const parentConfig = testConfig({
  family: "llama",
  vocabSize: 32,
  hiddenSize: 16,
  headDim: 4,
  maxPositions: 64,
  blocks: Array.from({ length: 4 }, () => ({ attention: gqa(2), ffn: swiglu(24) })),
});
/** A half and a whole block are missing, one half is linear, two blocks share a shape. */
const childConfig: ModelConfig = {
  ...parentConfig,
  blocks: [
    { attention: gqa(1), ffn: swiglu(12) },
    { attention: { kind: "none" }, ffn: { kind: "linear" } },
    { attention: { kind: "none" }, ffn: { kind: "none" } },
    { attention: gqa(1), ffn: { kind: "none" } },
  ],
};
const shape = { batch: 2, length: 8 };

function randomParameters(config: ModelConfig, seed: number): Parameters {
  const parameters = createParameters(modelWeights(config));
  const rng = createRng(seed);
  for (const { name, shape: own } of parameters.layout.places) {
    const { data } = parameters.tensors[name]!;
    for (let i = 0; i < data.length; i++) data[i] = own.length === 1 ? 1 + 0.1 * rng.normal() : 0.3 * rng.normal();
  }
  return parameters;
}

function batchOf(seed: number) {
  const rng = createRng(seed);
  const ids = Int32Array.from({ length: shape.batch * shape.length }, () => rng.int(32));
  return distillationBatch({ ids, batchSize: shape.batch, length: shape.length });
}

function teacherOf(runtime: Runtime, config: ModelConfig, { tensors }: Parameters): Teacher {
  const g = createGraph("teacher");
  const ids = g.input("ids", [shape.batch, shape.length], "i64");
  const weights = Object.fromEntries(modelWeights(config).map(({ name, shape: s }) => [name, g.input(name, s)]));
  const tables = rotaryTables(config, positionsFrom(0, shape.length));
  const built = buildModel(g, config, {
    ...shape,
    ids,
    weights,
    cos: g.constant(tables.cos),
    sin: g.constant(tables.sin),
  });
  built.hiddenStates.slice(1).forEach((state, layer) => {
    g.output(`after ${layer}`, state);
  });
  const head = tensors[config.tiedEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight"]!;
  const needed = new Set(g.inputs.map(({ name }) => name));
  return {
    config,
    async hiddenStates(rows, into) {
      const program = await runtime.compile(g);
      const feeds = Object.fromEntries(Object.entries(tensors).filter(([name]) => needed.has(name)));
      const flat = Int32Array.from(rows.flatMap((row) => [...row]));
      const results = await program.run({ ...feeds, ids: i64Tensor([shape.batch, shape.length], flat) });
      into.forEach((target, layer) => {
        target.data.set((results[`after ${layer}`] as F32Tensor).data);
      });
    },
    head: async () => ({ norm: tensors["model.norm.weight"]!, head }),
  };
}

describe("layeredDistillation", () => {
  /** Everything that is dear is kept, products alone (8 KiB), nothing. */
  test.each([
    [true, 1e9],
    [true, 8192],
    [false, 0],
  ])(
    "loss and gradients are those of the whole graph (tied: %s, keeping %d bytes)",
    async (tiedEmbeddings, keepBytes) => {
      const runtime = await createRuntime({ threads: 1 });
      const [parent, child] = [
        { ...parentConfig, tiedEmbeddings },
        { ...childConfig, tiedEmbeddings },
      ];
      const [teacher, student] = [randomParameters(parent, 1), randomParameters(child, 2)];
      const frozen = Object.fromEntries(Object.entries(teacher.tensors).map(([name, t]) => [parentPrefix + name, t]));
      const [expected, found] = [new Float32Array(student.layout.size), new Float32Array(student.layout.size).fill(7)];
      const whole = createStep(runtime, "whole", student, expected, modelDistillationLoss(parent, child, shape));
      const layered = layeredDistillation(teacherOf(runtime, parent, teacher), child, shape, { keepBytes }).create(
        ...([runtime, "layered", student, found] as const),
      );
      for (const [number, first] of [true, false].entries()) {
        const { feeds, weight } = batchOf(number);
        const one = await whole.run({ ...feeds, ...frozen }, 2 * weight, first);
        const other = await layered.run(feeds, 2 * weight, first);
        expect(other.loss).toBeCloseTo(one.loss, 5);
        expect(other.parts.cosine).toBeCloseTo(one.parts.cosine!, 5);
        for (const { name, offset, size } of student.layout.places) {
          const [a, b] = [expected, found].map((all) => all.subarray(offset, offset + size));
          const scale = Math.max(...a!.map(Math.abs));
          expect(scale, name).toBeGreaterThan(0);
          a!.forEach((value, i) => {
            expect(Math.abs(b![i]! - value), `${name} ${i}`).toBeLessThan(2e-5 * Math.max(scale, 1e-2));
          });
        }
      }
      await runtime.dispose();
    },
  );
});

import { afterAll, beforeAll, expect, test } from "vitest";
import { createRng } from "../base/index.js";
import { type Graph, interpret, optimise } from "../graph/index.js";
import { createTestModel, gqa, swiglu, testConfig } from "../models/testing.js";
import { createRuntime, type Runtime } from "../runtime/index.js";
import { buildStep, createStep, languageModelLoss, loadTrainable, nextTokenBatch, viewsOf } from "./index.js";

const blocks = Array.from({ length: 6 }, () => ({ attention: gqa(2), ffn: swiglu(96) }));
const config = testConfig({ vocabSize: 40, blocks });
const shape = { batch: 2, length: 48 };
const rng = createRng("recompute");
const ids = Int32Array.from({ length: shape.batch * shape.length }, () => rng.int(config.vocabSize));
const batch = nextTokenBatch({ ids, batchSize: shape.batch, length: shape.length });
const loss = languageModelLoss(config, shape);

let runtime: Runtime;
beforeAll(async () => {
  runtime = await createRuntime({ threads: 1 });
});
afterAll(() => runtime.dispose());

test("loss and gradients are the same to the bit", async () => {
  const { parameters } = await loadTrainable(createTestModel(config, 3));
  const run = async (recompute: boolean) => {
    const gradients = new Float32Array(parameters.layout.size);
    const step = createStep(runtime, `recompute_${recompute}`, parameters, gradients, loss, { recompute });
    const result = await step.run(batch.feeds, batch.weight, true);
    return { loss: result.loss, gradients };
  };
  const [kept, again] = [await run(false), await run(true)];
  expect(again.loss).toBe(kept.loss);
  expect(again.gradients).toEqual(kept.gradients);
  expect(kept.gradients.some((value) => value !== 0)).toBe(true);
});

/** Most f32 values that are alive at one time, in the order of the nodes. */
function peakValues({ nodes, outputs }: Graph): number {
  const lastUse = new Map<number, number>();
  nodes.forEach(({ inputs }, i) => {
    for (const { id } of inputs) lastUse.set(id, i);
  });
  for (const { value } of outputs) lastUse.set(value.id, nodes.length);
  const size = ({ shape: dims }: { shape: readonly number[] }) => dims.reduce((a, b) => a * b, 1);
  const dying = new Map<number, number>();
  let [alive, peak] = [0, 0];
  nodes.forEach(({ outputs: made }, i) => {
    for (const value of made) {
      alive += size(value);
      const last = lastUse.get(value.id) ?? i;
      dying.set(last, (dying.get(last) ?? 0) + size(value));
    }
    peak = Math.max(peak, alive);
    alive -= dying.get(i) ?? 0;
  });
  return peak;
}

test("what is alive at once is less than half, without the gradients themselves", async () => {
  const { parameters } = await loadTrainable(createTestModel(config, 3));
  const graph = (recompute: boolean) => optimise(buildStep("memory", parameters, loss, { recompute }));
  const gradients = parameters.layout.size;
  const [kept, again] = [peakValues(graph(false)) - gradients, peakValues(graph(true)) - gradients];
  expect(again).toBeLessThan(kept / 2);
});

test("the graph computes what the plain one does in float64", async () => {
  const { parameters } = await loadTrainable(createTestModel(config, 3));
  const feeds = { ...parameters.tensors, ...batch.feeds, denominator: [batch.weight] };
  const [kept, again] = [false, true].map((recompute) =>
    interpret(buildStep("plain", parameters, loss, { recompute }), feeds),
  );
  for (const name of Object.keys(viewsOf(parameters.layout, parameters.flat))) {
    expect(again![`gradient/${name}`]!.data, name).toEqual(kept![`gradient/${name}`]!.data);
  }
});

test("a loss that names no streams is refused", async () => {
  const { parameters } = await loadTrainable(createTestModel(config, 3));
  const bare: typeof loss = (g, values, denominator) => ({ loss: loss(g, values, denominator).loss });
  expect(() => buildStep("bare", parameters, bare, { recompute: true })).toThrow(
    "a loss that names its residual streams",
  );
});

import { expect, test } from "vitest";
import { createRng } from "../base/index.js";
import { mergeLora, modelWeights } from "../models/index.js";
import { createTestModel, gqa, swiglu, testConfig } from "../models/testing.js";
import { createRuntime } from "../runtime/index.js";
import { createLiveWeights, openTuning } from "./index.js";

const config = testConfig({ vocabSize: 40, blocks: [{ attention: gqa(2), ffn: swiglu(48) }] });

test("the merged weights follow the adapter in place, and the others are shared", async () => {
  const runtime = await createRuntime({ threads: 1 });
  const model = createTestModel(config, 3);
  const tuning = await openTuning(model, { lora: { rank: 4, alpha: 12, targets: ["q_proj", "down_proj"] } });
  const live = createLiveWeights(runtime, config, tuning);
  const arrays = Object.values(live.tensors).map(({ data }) => data);
  const rng = createRng(1);
  for (let round = 0; round < 2; round++) {
    tuning.parameters.flat.forEach((_, i) => {
      tuning.parameters.flat[i] = rng.normal();
    });
    await live.update();
    const merged = mergeLora(model, tuning.adapter()!);
    for (const { name } of modelWeights(config)) {
      const expected = (await merged.weights.read(name)).data as Float32Array;
      live.tensors[name]!.data.forEach((value, i) => {
        expect(value).toBeCloseTo(expected[i]!, 3);
      });
    }
  }
  expect(Object.values(live.tensors).map(({ data }) => data)).toEqual(arrays);
  const norm = "model.norm.weight";
  expect(live.tensors[norm]!.data).toBe((tuning.weights() as typeof live.tensors)[norm]!.data);
  await runtime.dispose();
});

test("without an adapter the weights are the parameters themselves", async () => {
  const runtime = await createRuntime({ threads: 1 });
  const tuning = await openTuning(createTestModel(config, 3));
  const live = createLiveWeights(runtime, config, tuning);
  await live.update();
  for (const [name, { data }] of Object.entries(live.tensors)) {
    expect(data).toBe(tuning.parameters.tensors[name]!.data);
  }
  await runtime.dispose();
});

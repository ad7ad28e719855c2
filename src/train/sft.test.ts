import { expect, test } from "vitest";
import { createGraph, interpret } from "../graph/index.js";
import { type SftAverage, sampleBatches, sftLoss } from "./index.js";

const short = { ids: Int32Array.of(1, 2), learn: Uint8Array.of(0, 1) };
const long = { ids: Int32Array.of(1, 2, 3, 4), learn: Uint8Array.of(0, 1, 1, 1) };
const shape = { batch: 1, length: 8, targets: 4, sequences: 2 };

async function lossOf(average: SftAverage): Promise<number> {
  const { batches } = sampleBatches([long, short], shape, { seed: 0, average });
  const { feeds, weight } = await batches(0);
  const g = createGraph("sft");
  const logProbs = g.input("logProbs", [4]);
  const tokens = {
    logProbs,
    entropy: logProbs,
    weights: g.input("weights", [4]),
    membership: g.input("membership", [2, 4]),
  };
  g.output("loss", sftLoss(average)(g, tokens, g.input("denominator", [])).loss);
  const { weights, membership } = feeds;
  const given = { logProbs: [-1, -2, -3, -10], weights: weights!, membership: membership!, denominator: [weight] };
  return interpret(g, given).loss!.data[0]!;
}

test("over tokens the long answer has three votes of four, over sequences one of two", async () => {
  // The long sample is packed first: its three tokens lose 1, 2 and 3 nats, the short one's 10.
  expect(await lossOf("tokens")).toBeCloseTo((1 + 2 + 3 + 10) / 4, 12);
  expect(await lossOf("sequences")).toBeCloseTo((2 + 10) / 2, 12);
});

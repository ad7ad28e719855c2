import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { emitOnnx, optimise, printGraph } from "../src/graph/index.js";
import { trainingStep } from "./support/training-step.js";

test("the training step of a small decoder, as text and as the digest of its ONNX model", async () => {
  const graph = optimise(trainingStep({ B: 2, T: 4, H: 8, heads: 4, kv: 2, F: 12, V: 16 }, { chunk: 4 }));
  const digest = createHash("sha256").update(emitOnnx(graph).bytes).digest("hex");
  await expect(`${printGraph(graph)}\nONNX sha256 ${digest}\n`).toMatchFileSnapshot("golden/graphs/training-step.txt");
});

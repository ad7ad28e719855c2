import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { createProgress } from "./progress.js";

test("a stage that counts two things one after the other shows both", () => {
  const stream = new PassThrough();
  const { onEvent } = createProgress(stream as unknown as NodeJS.WriteStream);
  for (let done = 1; done <= 10; done++) onEvent({ event: "progress", stage: "sft", done, total: 10, unit: "answers" });
  for (let step = 1; step <= 4; step++) onEvent({ event: "train", stage: "sft", step, steps: 4, loss: 2 / step });
  const lines = String(stream.read()).trim().split("\n");
  expect(lines.filter((line) => line.includes("answers"))).toHaveLength(10);
  expect(lines.filter((line) => line.includes("loss")).map((line) => line.replace(/.*(step .*?),? *$/, "$1"))).toEqual([
    expect.stringContaining("step 1/4 loss 2.0000"),
    expect.stringContaining("step 2/4 loss 1.0000"),
    expect.stringContaining("step 3/4 loss 0.6667"),
    expect.stringContaining("step 4/4 loss 0.5000"),
  ]);
});

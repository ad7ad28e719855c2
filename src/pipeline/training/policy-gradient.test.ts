import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../../base/testing.js";
import { checkTrainingRecipe } from "./recipe.js";
import { runTraining } from "./run.js";

const directory = temporaryDirectory();
const stage = {
  method: "grpo",
  data: repositoryPath("data/toy/prompts.jsonl"),
  reward: ["length:4-10words"],
  ...{
    heldOut: 4,
    measureSamples: 2,
    prompts: 2,
    samples: 4,
    maxTokens: 12,
    length: 96,
    steps: 3,
    learningRate: 0.003,
  },
};
const recipeOf = (name: string, changes: object) =>
  checkTrainingRecipe(
    {
      kind: "train",
      ...{ model: repositoryPath("models/stories260K"), chatTemplate: "plain", out: join(directory, name) },
      stages: [{ ...stage, ...changes }],
    },
    "recipe",
  );
const run = (name: string, changes: object, signal?: AbortSignal, onTrain?: (step: number) => void) =>
  runTraining(recipeOf(name, changes), {
    store: join(directory, name, "store"),
    threads: 1,
    ...(signal && { signal }),
    onEvent: (event) => event.event === "train" && onTrain?.(event.step),
  });
const adapterOf = (name: string) => readFile(join(directory, name, "adapter/adapter_model.safetensors"));

describe("learning from rewards", () => {
  test("a stage that was stopped goes on and makes the same adapter, curves and measures", {
    timeout: 180_000,
  }, async () => {
    const whole = await run("whole", {});
    const stopper = new AbortController();
    const stopped = run("halves", {}, stopper.signal, (step) => step === 2 && stopper.abort(new Error("enough")));
    await expect(stopped).rejects.toThrow("enough");
    const rest = await run("halves", {});
    expect(await adapterOf("halves")).toEqual(await adapterOf("whole"));
    const shown = ({ measures, curves, notes, samples }: (typeof rest.result.stages)[number]) => ({
      ...{ measures, curves, notes, samples },
    });
    expect(shown(rest.result.stages[0]!)).toEqual(shown(whole.result.stages[0]!));
    const { measures, curves } = whole.result.stages[0]!;
    expect(measures.map(({ name, after }) => [name, after.n])).toEqual([
      ["held-out reward", 4],
      ["KL from the start", 4],
      ["length of answers", 4],
      ["answers that ended by themselves", 4],
      ["entropy", 4],
    ]);
    expect(measures[1]!.before!.mean).toBe(0);
    expect(measures[1]!.after.mean).toBeGreaterThan(0);
    expect(curves.map(({ name }) => name)).toContain("share of prompts with one reward");
  });

  test("a limit ends it early, and what was learnt is kept", async () => {
    const { result } = await run("limited", { limit: ["length<1"] });
    const { notes, curves } = result.stages[0]!;
    expect(notes.at(-1)).toMatch(/^ended early: step 1: length/);
    expect(curves[0]!.points).toHaveLength(1);
    expect((await adapterOf("limited")).length).toBeGreaterThan(1000);
  });

  test("a reward that hangs names itself and the prompt", async () => {
    const path = join(directory, "broken.js");
    await writeFile(path, "export default () => { for (;;); };");
    const failing = run("failing", { reward: `module:${path}`, rewardSeconds: 0.2 });
    await expect(failing).rejects.toThrow(/reward broken.js, answer \d+ to ".*expected a score within 0.2 s/);
  });
});

test("mistakes in fields are told before anything is read", () => {
  const message = (changes: object) => {
    try {
      recipeOf("wrong", changes);
      return "";
    } catch (error) {
      return (error as Error).message;
    }
  };
  expect(message({ reward: "praise" })).toContain("reward praise: expected one of maths");
  expect(message({ limit: "weight<3" })).toContain("with one of length, length-drift");
  expect(message({ curriculum: true, steps: undefined, minutes: 1 })).toContain("it needs steps or epochs");
  expect(message({ length: 12 })).toContain("it must hold a prompt and an answer of 12 tokens");
});

/** A whole reshaping run from a program, on a recipe small enough for a minute: budget, search, child, report. */
import { checkRecipe, reshape } from "espalier";

const recipe = checkRecipe(
  {
    kind: "reshape",
    parent: "models/stories260K",
    out: "out/example",
    budget: { params: "70%" },
    context: 512,
    length: 128,
    targets: ["hf", "gguf"],
    variants: { ffn: [0.75, 0.5, 0.25] },
    calibrate: { tokens: 4096 },
    score: { tokens: 1024 },
    search: { solutions: 2 },
    distil: { tokens: 16_384 },
    baselines: ["uniform"],
    evaluate: { tokens: 4096 },
    measure: { prompt: 64, generate: 16, repeats: 2 },
    sample: { tokens: 24 },
  },
  "the recipe of this example",
);

// Finished stages stay in .espalier/: run it again and it takes a moment.
const { result, table } = await reshape(recipe, {
  onEvent: (event) => {
    if (event.event === "stage-end") console.log(`${event.stage}${event.cached ? " (kept)" : ""}`);
  },
});
console.log(table);
console.log(`KL before distillation ${result.child.klBeforeDistillation.mean}, after ${result.child.kl.mean}`);
for (const { path, maxAbsLogitDifference } of result.exports) console.log(path, maxAbsLogitDifference);

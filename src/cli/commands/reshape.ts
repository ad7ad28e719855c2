import { Command } from "commander";
import type { RecipeInput } from "../../pipeline/index.js";
import { collect, nonNegativeNumber, positiveInteger } from "../options.js";
import { runCommand } from "../output.js";

export function createCommand(): Command {
  return new Command("reshape")
    .description("Makes a smaller child of a model under a budget, and a report of what was kept.")
    .argument("<model>", "Hugging Face directory or .gguf file of the parent")
    .requiredOption(
      "--budget <name=value>",
      "params=80%, memory=300MiB, params=0.5x; repeat it and all must hold",
      collect,
    )
    .requiredOption("--out <dir>", "where the child, its exports and the report go")
    .option("--text <file>", "text to calibrate, distil and measure on (default: the bundled stories)")
    .option("--evaluate <file>", "another text to measure on (default: a part set aside)")
    .option("--batch <n>", "sequences held at once, for the memory budget", positiveInteger, 1)
    .option("--context <n>", "tokens a sequence may have, for the memory budget", positiveInteger, 2048)
    .option("--targets <formats>", "formats that the child must fit: gguf,hf", "gguf,hf")
    .option("--distil-tokens <n>", "tokens of distillation from the parent", nonNegativeNumber)
    .option("--block-tokens <n>", "tokens of block-wise distillation of each variant", nonNegativeNumber)
    .option("--length <n>", "tokens of a sequence", positiveInteger)
    .option("--seed <n>", "seed of everything random", nonNegativeNumber, 0)
    .option("--store <dir>", "where finished stages are kept", ".espalier")
    .option("--dry-run", "say what it will take and which budgets can be reached, and do nothing")
    .addHelpText(
      "after",
      "\nExamples:\n  $ espalier reshape models/stories260K --budget params=60% --out out/child\n" +
        "  $ espalier reshape model.gguf --budget memory=300MiB --text notes.txt --out out/child --dry-run",
    )
    .action((model: string, options: ReshapeOptions, command: Command) =>
      runCommand(command, async (io) => {
        const { checkRecipe } = await import("../../pipeline/index.js");
        const { runRecipe } = await import("../run-recipe.js");
        const recipe = checkRecipe(recipeOf(model, options), "reshape");
        await runRecipe(recipe, { ...options, command: commandLine(model, options) }, io);
      }),
    );
}

interface ReshapeOptions {
  budget: string[];
  out: string;
  text?: string;
  evaluate?: string;
  batch: number;
  context: number;
  targets: string;
  distilTokens?: number;
  blockTokens?: number;
  length?: number;
  seed: number;
  store: string;
  dryRun?: boolean;
}

function recipeOf(parent: string, options: ReshapeOptions): RecipeInput {
  const { out, batch, context, seed, length, text, evaluate, distilTokens, blockTokens } = options;
  return {
    kind: "reshape",
    parent,
    out,
    batch,
    context,
    seed,
    budget: gatherBudgets(options.budget),
    targets: options.targets.split(",") as ("gguf" | "hf")[],
    ...(length !== undefined && { length }),
    text: { ...(text !== undefined && { train: text }), ...(evaluate !== undefined && { evaluate }) },
    ...(distilTokens !== undefined && { distil: { tokens: distilTokens } }),
    ...(blockTokens !== undefined && { blocks: { tokens: blockTokens } }),
  };
}

/** `params=80%`, `params=100K` -> { params: ["80%", "100K"] }; the recipe's schema judges names and values. */
function gatherBudgets(texts: readonly string[]): Record<string, string[]> {
  const budget: Record<string, string[]> = {};
  for (const text of texts) {
    const at = text.includes("=") ? text.indexOf("=") : text.length;
    const name = text.slice(0, at).trim();
    budget[name] = [...(budget[name] ?? []), text.slice(at + 1).trim()];
  }
  return budget;
}

function commandLine(model: string, options: ReshapeOptions): string {
  const budgets = options.budget.map((budget) => ` --budget ${budget}`).join("");
  const text = options.text === undefined ? "" : ` --text ${options.text}`;
  const seed = options.seed === 0 ? "" : ` --seed ${options.seed}`;
  return `espalier reshape ${model}${budgets}${text}${seed} --out ${options.out}`;
}

import { Command } from "commander";
import { runCommand } from "../output.js";

export function createCommand(): Command {
  return new Command("run")
    .description("Runs a recipe; one that was stopped or killed goes on where it was.")
    .argument("[recipe]", "recipe file, JSON or YAML", "recipes/start.json")
    .option("--store <dir>", "where finished stages are kept", ".espalier")
    .option("--out <dir>", "write here instead of where the recipe says")
    .option("--dry-run", "say what it will take, and do nothing")
    .addHelpText(
      "after",
      "\nExample:\n  $ espalier run recipes/start.json" +
        "\n\nFiles that the recipe names are looked for in the working directory, then in the package (models/stories260K).",
    )
    .action((path: string, options: RunOptions, command: Command) =>
      runCommand(command, async (io) => {
        const { checkRecipe, checkTrainingRecipe, locate, readRecipeData } = await import("../../pipeline/index.js");
        const where = await locate(path);
        const data = await readRecipeData(where);
        const own = { ...options, command: `espalier run ${path}` };
        const to = options.out === undefined ? {} : { out: options.out };
        if (isTraining(data)) {
          const { runTrainingRecipe } = await import("../method-command.js");
          return runTrainingRecipe({ ...checkTrainingRecipe(data, where), ...to }, own, io);
        }
        const { runRecipe } = await import("../run-recipe.js");
        await runRecipe({ ...checkRecipe(data, where), ...to }, own, io);
      }),
    );
}

function isTraining(data: unknown): boolean {
  return typeof data === "object" && data !== null && "kind" in data && data.kind === "train";
}

interface RunOptions {
  store: string;
  out?: string;
  dryRun?: boolean;
}

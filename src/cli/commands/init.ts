import { Command } from "commander";
import { runCommand } from "../output.js";

export function createCommand(): Command {
  return new Command("init")
    .description("Writes a recipe to start from: every field with its default.")
    .argument("[file]", "where to write it", "recipe.json")
    .option("--parent <model>", "Hugging Face directory or .gguf file", "models/stories260K")
    .option("--budget <name=value>", "bound on the child", "params=60%")
    .option("--out <dir>", "where the run will write", "out/child")
    .option("--force", "replace a file that exists")
    .addHelpText(
      "after",
      "\nExample:\n  $ espalier init recipe.json --parent models/stories260K && espalier run recipe.json",
    )
    .action((file: string, options: InitOptions, command: Command) =>
      runCommand(command, async (io) => {
        const { EspalierError, fileExists, writeJsonAtomic } = await import("../../base/index.js");
        const { checkRecipe } = await import("../../pipeline/index.js");
        if (!options.force && (await fileExists(file))) {
          throw new EspalierError({
            where: file,
            found: "a file of that name",
            fix: "--force replaces it",
            exitCode: 2,
          });
        }
        const [name, value] = options.budget.split("=");
        const recipe = checkRecipe(
          { kind: "reshape", parent: options.parent, out: options.out, budget: { [name!]: value ?? "" } },
          "the new recipe",
        );
        await writeJsonAtomic(file, recipe);
        io.result({ path: file, recipe }, () => `wrote ${file}\nnext: espalier run ${file}`);
      }),
    );
}

interface InitOptions {
  parent: string;
  budget: string;
  out: string;
  force?: boolean;
}

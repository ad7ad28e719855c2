import { Command } from "commander";
import { EspalierError } from "../../base/index.js";
import type { RecipeInput } from "../../pipeline/index.js";
import { collect, nonNegativeNumber, positiveInteger } from "../options.js";
import { runCommand } from "../output.js";

export function createCommand(): Command {
  return new Command("reshape")
    .description("Makes a smaller child of a model under a budget, and a report of what was kept.")
    .argument("<model>", "Hugging Face directory or .gguf file of the parent")
    .option(
      "--budget <name=value>",
      "params=80%, memory=300MiB, decode=1.5x, prefill=1.3x, throughput=1.4x, latency=2s; repeat it and all must hold; ~3% after a value allows to miss it by so much",
      collect,
      [],
    )
    .option("--child <name:budget>", "one of several children, NAME:decode=1.25x,params=90%; repeat it", collect, [])
    .requiredOption("--out <dir>", "where the child, its exports and the report go")
    .option(
      "--text <file>",
      "text to calibrate, distil and measure on, plain or .jsonl of conversations; repeat it to mix (default: bundled ones)",
      collect,
    )
    .option("--evaluate <file>", "other text to measure on; repeat it (default: a part set aside)", collect)
    .option("--type <type>", "weights in use, for memory and speeds: f32, f16, bf16, q8_0", "q8_0")
    .option("--input <n>", "tokens of a prompt in use, for speeds", positiveInteger, 512)
    .option("--output <n>", "tokens generated after it, for speeds", positiveInteger, 128)
    .option("--batch <n>", "sequences held at once, for memory and speeds", positiveInteger, 1)
    .option("--context <n>", "tokens a sequence may have, for memory", positiveInteger, 2048)
    .option(
      "--scenario <name:input,output,batch>",
      "another use, for budgets such as latency@NAME=2s; repeat it",
      collect,
      [],
    )
    .option("--costs <file>", "costs from `espalier measure --json`, of this machine or another")
    .option("--any-version", "take --costs although other versions were measured")
    .option("--sweep", "draw the frontier of every cost")
    .option("--drop-layers", "allow budgets that only a child without some whole layers meets")
    .option("--targets <formats>", "formats that the child must fit: gguf,hf", "gguf,hf")
    .option("--distill <bound>", "distillation from the parent of each child: 30m, 2h, 400K tokens, 0")
    .option("--distil-tokens <n>", "the same as a number of tokens", nonNegativeNumber)
    .option("--block-tokens <n>", "tokens of block-wise distillation of each variant", nonNegativeNumber)
    .option("--length <n>", "tokens of a sequence", positiveInteger)
    .option("--seed <n>", "seed of everything random", nonNegativeNumber, 0)
    .option("--store <dir>", "where finished stages are kept", ".espalier")
    .option("--dry-run", "say what it will take and which budgets can be reached, and do nothing")
    .addHelpText(
      "after",
      "\nExamples:\n  $ espalier reshape models/stories260K --budget params=60% --out out/child\n" +
        "  $ espalier reshape model.gguf --budget memory=300MiB --text notes.txt --out out/child --dry-run\n" +
        "  $ espalier reshape model.gguf --child small:params=80% --child fast:decode=1.25x --text notes.txt --text chats.jsonl \\\n" +
        "      --distill 30m --sweep --out out/children",
    )
    .action((model: string, options: ReshapeOptions, command: Command) =>
      runCommand(command, async (io) => {
        const { checkRecipe, parseDistill } = await import("../../pipeline/index.js");
        const { runRecipe } = await import("../run-recipe.js");
        const recipe = checkRecipe(recipeOf(model, options, parseDistill), "reshape");
        await runRecipe(recipe, { ...options, command: commandLine(model, options) }, io);
      }),
    );
}

interface ReshapeOptions {
  budget: string[];
  child: string[];
  out: string;
  text?: string[];
  evaluate?: string[];
  type: string;
  input: number;
  output: number;
  batch: number;
  context: number;
  scenario: string[];
  costs?: string;
  anyVersion?: boolean;
  sweep?: boolean;
  dropLayers?: boolean;
  distill?: string;
  targets: string;
  distilTokens?: number;
  blockTokens?: number;
  length?: number;
  seed: number;
  store: string;
  dryRun?: boolean;
}

function recipeOf(parent: string, options: ReshapeOptions, parseDistill: (text: string) => object): RecipeInput {
  const { out, type, input, output, batch, context, seed, length, text, evaluate, distill, distilTokens, blockTokens } =
    options;
  const { costs, anyVersion = false, dropLayers = false, sweep = false } = options;
  if (distill !== undefined && distilTokens !== undefined) throw bothBounds(distill, distilTokens);
  const distil = distill === undefined ? distilTokens !== undefined && { tokens: distilTokens } : parseDistill(distill);
  return {
    kind: "reshape",
    parent,
    out,
    type: type as "q8_0",
    input,
    output,
    batch,
    context,
    seed,
    dropLayers,
    search: { sweep },
    scenarios: gatherScenarios(options.scenario),
    ...(options.budget.length > 0 && { budget: gatherBudgets(options.budget) }),
    ...(options.child.length > 0 && { children: gatherChildren(options.child) }),
    targets: options.targets.split(",") as ("gguf" | "hf")[],
    ...(length !== undefined && { length }),
    text: { ...(text && { train: text }), ...(evaluate && { evaluate }) },
    ...(costs !== undefined && { costs: { file: costs, anyVersion } }),
    ...(distil && { distil }),
    ...(blockTokens !== undefined && { blocks: { tokens: blockTokens } }),
  };
}

function bothBounds(distill: string, tokens: number): EspalierError {
  return new EspalierError({
    where: "--distill",
    expected: "one bound of the distillation",
    found: `--distill ${distill} and --distil-tokens ${tokens}`,
    fix: "leave one of them out",
    exitCode: 2,
  });
}

/** `small:params=60%,decode=1.2x` -> { small: { params: ["60%"], decode: ["1.2x"] } }. */
function gatherChildren(texts: readonly string[]): Record<string, Record<string, string[]>> {
  const children: Record<string, Record<string, string[]>> = {};
  for (const text of texts) {
    const [name, budgets] = splitName("--child", text, "NAME:BUDGET, for example fast:decode=1.25x");
    children[name] = { ...children[name], ...gatherBudgets(budgets.split(",")) };
  }
  return children;
}

/** `chat:input=200,output=50,batch=1`. */
function gatherScenarios(texts: readonly string[]): NonNullable<RecipeInput["scenarios"]> {
  const scenarios = texts.map((text) => {
    const [name, uses] = splitName("--scenario", text, "NAME:input=N,output=N,batch=N");
    return [name, Object.fromEntries(uses.split(",").map(readUse))];
  });
  // The recipe's schema says what is missing.
  return Object.fromEntries(scenarios);
}

function readUse(use: string): [string, number] {
  const [name = "", value] = use.split("=");
  return [name.trim(), Number(value)];
}

function splitName(where: string, text: string, expected: string): [string, string] {
  const at = text.indexOf(":");
  if (at > 0 && at < text.length - 1) return [text.slice(0, at).trim(), text.slice(at + 1).trim()];
  throw new EspalierError({ where, expected, found: `"${text}"`, exitCode: 2 });
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
  const repeated = (flag: string, values: readonly string[] = []) =>
    values.map((value) => ` --${flag} ${value}`).join("");
  const { budget, child, scenario, text, evaluate, distill, costs, seed, type, out } = options;
  const single = (flag: string, value: string | undefined) => (value === undefined ? "" : ` --${flag} ${value}`);
  return (
    `espalier reshape ${model}${repeated("budget", budget)}${repeated("child", child)}${repeated("scenario", scenario)}` +
    `${repeated("text", text)}${repeated("evaluate", evaluate)}${single("distill", distill)}${single("costs", costs)}` +
    `${type === "q8_0" ? "" : ` --type ${type}`}${seed === 0 ? "" : ` --seed ${seed}`} --out ${out}`
  );
}

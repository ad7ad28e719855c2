import { isAbsolute, resolve } from "node:path";
import { parse as parseYaml } from "yaml";
import { checkSchema, EspalierError, messageOf, readText, z } from "../base/index.js";
import type { Scenario } from "../plan/index.js";
import { type Budget, parseBudgetValue } from "./budget.js";

/** Weight types that an export can have. */
export const recipeTypes = ["f32", "f16", "bf16", "q8_0"] as const;

const tokens = (fallback: number, what: string) => z.int().min(1).default(fallback).describe(what);

const files = z.union([z.string(), z.array(z.string()).min(1)]).transform((paths) => [paths].flat());

const count = (fallback: number) => z.int().min(1).default(fallback);

const budgetSchema = z
  .record(z.string(), z.union([z.string(), z.array(z.string()).min(1)]))
  .superRefine((budget, context) => {
    if (Object.keys(budget).length === 0) context.addIssue({ code: "custom", message: "name at least one cost" });
    for (const [name, value] of Object.entries(budget)) {
      for (const bound of [value].flat()) {
        try {
          parseBudgetValue(name, bound);
        } catch (error) {
          context.addIssue({ code: "custom", path: [name], message: messageOf(error) });
        }
      }
    }
  })
  .describe('Bounds that must all hold: {"params": "60%", "decode": ["1.5x", "40tok/s~3%"]}.');

const scenarioSchema = z
  .strictObject({ input: z.int().min(1), output: z.int().min(1), batch: z.int().min(1) })
  .describe("Prompts of `input` tokens, `output` tokens after each, `batch` sequences at once.");

const fileName = /^[a-z0-9][a-z0-9._-]{0,40}$/i;
const reserved = ["parent", "uniform", "greedy", "random"];

/** What is wrong with a child's name, which is a directory's and a table's. */
function badChildName(name: string): string | undefined {
  if (!fileName.test(name)) return "a name has letters, digits, dots, dashes and underscores, at most 41";
  return reserved.includes(name) ? "a name that the table's own rows have" : undefined;
}

/** What a reshaping run is told; every field has a default but the parent, the budget and the output. */
export const recipeSchema = z
  .strictObject({
    $schema: z.string().optional(),
    kind: z.literal("reshape").describe("The pipeline that the recipe drives."),
    parent: z.string().min(1).describe("Hugging Face directory or .gguf file of the parent."),
    out: z.string().min(1).describe("Directory for the child, its exports and the report."),
    budget: budgetSchema.optional(),
    children: z
      .record(z.string(), budgetSchema)
      .refine((children) => Object.keys(children).length > 0, "name at least one child")
      .optional()
      .describe("Several children of one library, by name, each with its bounds; `budget` holds for all of them."),
    seed: z.int().min(0).default(0).describe("Seed of everything random."),
    targets: z
      .array(z.enum(["gguf", "hf"]))
      .min(1)
      .default(["gguf", "hf"])
      .describe("Formats the child must fit."),
    type: z.enum(recipeTypes).default("q8_0").describe("Number type of the weights in use, for memory and speeds."),
    input: count(512).describe("Tokens of a prompt in use, for the speed budgets."),
    output: count(128).describe("Tokens generated after it, for the speed budgets."),
    batch: count(1).describe("Sequences held at once in use, for the memory and speed budgets."),
    context: count(2048).describe("Tokens a sequence may have, for the memory budget."),
    scenarios: z
      .record(z.string(), scenarioSchema)
      .optional()
      .describe("Other uses, by name, for budgets such as latency@NAME."),
    costs: z
      .strictObject({
        file: z.string().min(1).describe("Costs that `espalier measure --json` printed, on this machine or another."),
        anyVersion: z.boolean().default(false).describe("Take them although other versions were measured."),
      })
      .optional(),
    dropLayers: z.boolean().default(false).describe("Allow budgets that can only be met by leaving whole layers out."),
    text: z
      .strictObject({
        train: files
          .optional()
          .describe(
            "Texts for calibration, scoring and distillation: plain, or .jsonl of conversations; default: bundled ones.",
          ),
        packing: z
          .enum(["document", "packed"])
          .optional()
          .describe(
            "document: the first tokens of each document; packed: documents one after the other. Default: document for the bundled stories, else packed.",
          ),
        evaluate: files.optional().describe("Texts for measuring; default: set aside from the others."),
      })
      .prefault({}),
    length: tokens(256, "Tokens of a sequence in every stage."),
    calibrate: z.strictObject({ tokens: tokens(24_576, "Tokens from which starts are fitted.") }).prefault({}),
    variants: z
      .strictObject({
        ffn: z
          .array(z.number().gt(0).lt(1))
          .default([0.75, 0.5, 0.25, 0.1])
          .describe("Shares of the parent's FFN width."),
        refit: z.boolean().default(true).describe("Closed-form ridge refits of the starts."),
      })
      .prefault({}),
    blocks: z
      .strictObject({
        tokens: z
          .union([z.literal("auto"), z.int().min(0)])
          .default("auto")
          .describe(
            "Tokens of block-wise distillation for each variant; 0: none; auto: where a probe finds that it pays.",
          ),
        learningRate: z.number().positive().default(1e-3),
      })
      .prefault({}),
    score: z.strictObject({ tokens: tokens(8_192, "Tokens on which replaced blocks are scored.") }).prefault({}),
    search: z
      .strictObject({
        solutions: z.int().min(1).default(8).describe("Best architectures kept for the report."),
        minDistance: z.int().min(1).default(1).describe("Layers in which any two of them differ."),
        sweep: z.boolean().default(false).describe("Draw the frontier of every cost, not only of the first bounded."),
      })
      .prefault({}),
    distil: z
      .strictObject({
        tokens: z
          .int()
          .min(0)
          .optional()
          .describe("Tokens of distillation from the parent; 0: none. Default: 400000, where no minutes are named."),
        minutes: z
          .number()
          .positive()
          .optional()
          .describe("Minutes of distillation by the clock, measuring on the way included, in place of tokens."),
        batch: z.int().min(1).default(8).describe("Sequences of a step."),
        learningRate: z
          .number()
          .positive()
          .optional()
          .describe("Peak rate; default: 1e-3 for parents of at most ten million parameters, 3e-4 above."),
        baselines: z
          .enum(["all", "best", "none"])
          .default("best")
          .describe("Which baselines are distilled too, on as many tokens: all, the best before distillation, none."),
      })
      .refine(({ tokens = 0, minutes }) => tokens === 0 || minutes === undefined, {
        message: "name tokens or minutes, not both",
      })
      .transform(({ tokens, minutes, ...rest }) => ({
        ...rest,
        tokens: tokens ?? (minutes === undefined ? 400_000 : 0),
        ...(minutes !== undefined && { minutes }),
      }))
      .prefault({}),
    baselines: z
      .array(z.enum(["uniform", "greedy", "random"]))
      .default(["uniform", "greedy", "random"])
      .describe("Children chosen in other ways at the same budget; random stands for three seeds."),
    evaluate: z
      .strictObject({ tokens: tokens(32_768, "Set-aside tokens on which children are measured.") })
      .prefault({}),
    measure: z
      .strictObject({
        prompt: z.int().min(1).optional().describe("Tokens of the prompt that prefill is timed on; default: `input`."),
        generate: z.int().min(1).optional().describe("Tokens that decoding is timed on; default: `output`."),
        repeats: z.int().min(2).default(5),
      })
      .prefault({}),
    sample: z
      .strictObject({
        prompts: z
          .array(z.string().min(1))
          .min(1)
          .optional()
          .describe("Default: five questions to a chat model, else the beginning of a story."),
        chat: z.boolean().default(true).describe("Put them to a chat model in its own template."),
        tokens: tokens(96, "Tokens of each sample that parent and children write."),
      })
      .prefault({}),
  })
  .superRefine((recipe, context) => {
    const { budget, children, scenarios = {} } = recipe;
    if (!budget && !children)
      context.addIssue({ code: "custom", path: ["budget"], message: "name a budget, or children with theirs" });
    for (const name of Object.keys(children ?? {})) {
      const message = badChildName(name);
      if (message) context.addIssue({ code: "custom", path: ["children", name], message });
    }
    for (const [path, names] of budgetPlaces(budget, children)) {
      for (const name of names) {
        const scenario = name.split("@")[1];
        if (scenario === undefined || scenario in scenarios) continue;
        const known = Object.keys(scenarios).join(", ") || "none";
        context.addIssue({
          code: "custom",
          path: [...path, name],
          message: `no scenario "${scenario}"; there are: ${known}`,
        });
      }
    }
  })
  .describe("A recipe of Espalier.");

type BudgetInput = Record<string, string | string[]>;

function budgetPlaces(budget?: BudgetInput, children: Record<string, BudgetInput> = {}): [string[], string[]][] {
  return [
    [["budget"], Object.keys(budget ?? {})],
    ...Object.entries(children).map(([name, own]): [string[], string[]] => [["children", name], Object.keys(own)]),
  ];
}

export type Recipe = z.output<typeof recipeSchema>;
export type RecipeInput = z.input<typeof recipeSchema>;

/** Reads a recipe (JSON or YAML); an error names every problem with its path. Relative paths count from the working directory. */
export async function readRecipe(path: string): Promise<Recipe> {
  return checkRecipe(await readRecipeData(path), path);
}

/** What a recipe file holds, of whatever kind, before it is checked. */
export async function readRecipeData(path: string): Promise<unknown> {
  return parseData(await readText(path), path);
}

export function parseRecipe(text: string, where: string): Recipe {
  return checkRecipe(parseData(text, where), where);
}

export function checkRecipe(value: unknown, where: string): Recipe {
  return checkSchema(recipeSchema, value, where);
}

// JSON is read as YAML, of which it is a part; the YAML reader's messages have line and column.
function parseData(text: string, where: string): unknown {
  try {
    return parseYaml(text);
  } catch (cause) {
    throw new EspalierError({
      where,
      expected: "JSON or YAML",
      found: messageOf(cause).split("\n")[0]!,
      cause,
      exitCode: 2,
    });
  }
}

/** The JSON Schema that editors complete recipes with. */
export function recipeJsonSchema(): unknown {
  return z.toJSONSchema(recipeSchema, { io: "input", unrepresentable: "any" });
}

/** A child to be made and the bounds that it must keep. */
export interface AskedChild {
  name: string;
  budgets: Budget[];
  /** The bounds as they were written. */
  text: string;
}

/** The children of a recipe: those that it names, or one called "child". */
export function childrenOf({ budget = {}, children = { child: {} } }: Recipe): AskedChild[] {
  return Object.entries(children).map(([name, own]) => {
    const bounds = [...entriesOf(budget), ...entriesOf(own)];
    return {
      name,
      budgets: bounds.map(([cost, bound]) => parseBudgetValue(cost, bound)),
      text: bounds.map(([cost, bound]) => `${cost} ${bound}`).join(", "),
    };
  });
}

function entriesOf(budget: BudgetInput): [string, string][] {
  return Object.entries(budget).flatMap(([name, value]) =>
    [value].flat().map((bound): [string, string] => [name, bound]),
  );
}

/** The use of a speed budget: one that the recipe names, or its own. */
export function scenarioOf({ input, output, batch, scenarios }: Recipe, name: string | undefined): Scenario {
  return name === undefined ? { input, output, batch } : scenarios![name]!;
}

export function fromWorkingDirectory(path: string): string {
  return isAbsolute(path) ? path : resolve(process.cwd(), path);
}

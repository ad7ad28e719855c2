import { isAbsolute, resolve } from "node:path";
import { parse as parseYaml } from "yaml";
import { checkSchema, EspalierError, messageOf, readText, z } from "../base/index.js";
import { type Budget, costNames, parseBudgetValue } from "./budget.js";

const tokens = (fallback: number, what: string) => z.int().min(1).default(fallback).describe(what);

const budgetSchema = z
  .partialRecord(z.enum(costNames), z.union([z.string(), z.array(z.string()).min(1)]), {
    error: (issue) =>
      "keys" in issue && Array.isArray(issue.keys)
        ? `unknown: ${issue.keys.join(", ")}; costs are ${costNames.join(", ")}`
        : undefined,
  })
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
  .describe('Bounds that must all hold: {"params": "60%", "memory": ["300MiB", "0.5x"]}.');

/** What a reshaping run is told; every field has a default but the parent, the budget and the output. */
export const recipeSchema = z
  .strictObject({
    $schema: z.string().optional(),
    kind: z.literal("reshape").describe("The pipeline that the recipe drives."),
    parent: z.string().min(1).describe("Hugging Face directory or .gguf file of the parent."),
    out: z.string().min(1).describe("Directory for the child, its exports and the report."),
    budget: budgetSchema,
    seed: z.int().min(0).default(0).describe("Seed of everything random."),
    targets: z
      .array(z.enum(["gguf", "hf"]))
      .min(1)
      .default(["gguf", "hf"])
      .describe("Formats the child must fit."),
    batch: z.int().min(1).default(1).describe("Sequences held at once, for the memory budget."),
    context: z.int().min(1).default(2048).describe("Tokens a sequence may have, for the memory budget."),
    text: z
      .strictObject({
        train: z
          .string()
          .optional()
          .describe("Text for calibration, scoring and distillation; default: the bundled one."),
        packing: z
          .enum(["document", "packed"])
          .optional()
          .describe(
            "document: the first tokens of each document; packed: documents one after the other. Default: document for the bundled stories, else packed.",
          ),
        evaluate: z.string().optional().describe("Text for measuring; default: set aside from the training text."),
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
        tokens: z.int().min(0).default(0).describe("Tokens of block-wise distillation for each variant; 0: none."),
        learningRate: z.number().positive().default(1e-3),
      })
      .prefault({}),
    score: z.strictObject({ tokens: tokens(8_192, "Tokens on which replaced blocks are scored.") }).prefault({}),
    search: z
      .strictObject({
        solutions: z.int().min(1).default(8).describe("Best architectures kept for the report."),
        minDistance: z.int().min(1).default(1).describe("Layers in which any two of them differ."),
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
        learningRate: z.number().positive().default(1e-3),
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
        prompt: tokens(256, "Tokens of the prompt that prefill is timed on."),
        generate: tokens(64, "Tokens that decoding is timed on."),
        repeats: z.int().min(2).default(5),
      })
      .prefault({}),
    sample: z
      .strictObject({
        prompt: z.string().default("Once upon a time"),
        tokens: tokens(96, "Tokens of the sample that parent and child write."),
      })
      .prefault({}),
  })
  .describe("A recipe of Espalier.");

export type Recipe = z.output<typeof recipeSchema>;
export type RecipeInput = z.input<typeof recipeSchema>;

/** Reads a recipe (JSON or YAML); an error names every problem with its path. Relative paths count from the working directory. */
export async function readRecipe(path: string): Promise<Recipe> {
  return parseRecipe(await readText(path), path);
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

/** The recipe's bounds, one for each text. */
export function budgetsOf(recipe: Recipe): Budget[] {
  return Object.entries(recipe.budget).flatMap(([name, value]) =>
    [value].flat().map((bound) => parseBudgetValue(name, bound)),
  );
}

export function fromWorkingDirectory(path: string): string {
  return isAbsolute(path) ? path : resolve(process.cwd(), path);
}

/** @module Recipes of training: a model, and the stages that it goes through. */
import { checkSchema, z } from "../../base/index.js";
import { methodOf, methods } from "./methods.js";

const stageName = /^[a-z0-9][a-z0-9._-]{0,40}$/i;

interface StageBase {
  method: string;
  name?: string | undefined;
}

/** A stage as the recipe has it: a method's name and its fields. */
export type Stage = StageBase & Record<string, unknown>;

/** Stages that are done several times, each round beginning with the model of the one before. */
export interface Rounds {
  rounds: number;
  name?: string | undefined;
  stages: Stage[];
}

export type Step = Stage | Rounds;

const nameField = z
  .string()
  .regex(stageName, "a name has letters, digits, dots, dashes and underscores, at most 41")
  .optional()
  .describe("Name of the stage, by which later ones refer to it; default: the method's.");

const stageSchemas = Object.entries(methods).map(([name, { fields, summary }]) =>
  z
    .strictObject({ method: z.literal(name), name: nameField, ...(fields as z.ZodRawShape) })
    .superRefine((stage, context) => {
      for (const { field, message } of methodOf(name)?.problems?.(stage as never) ?? []) {
        context.addIssue({ code: "custom", path: [field], message });
      }
    })
    .describe(`${summary}.`),
);

const stageSchema = z.discriminatedUnion("method", stageSchemas as unknown as [(typeof stageSchemas)[number]]);

const roundsSchema = z
  .strictObject({
    rounds: z.int().min(1).describe("How often the stages are done."),
    name: nameField,
    stages: z.array(stageSchema).min(1),
  })
  .describe(
    "Stages that are done several times: each round begins with the model, and takes it for reference, of the one before.",
  );

export const trainingRecipeSchema = z
  .strictObject({
    $schema: z.string().optional(),
    kind: z.literal("train").describe("The pipeline that the recipe drives."),
    model: z.string().min(1).describe("Hugging Face directory or .gguf file to begin with."),
    out: z.string().min(1).describe("Directory for models, data and the report."),
    seed: z.int().min(0).default(0).describe("Seed of everything random."),
    chatTemplate: z
      .string()
      .min(1)
      .optional()
      .describe("For a model without a chat template, or in place of its own: a Jinja file, or `plain`."),
    stages: z.array(z.union([roundsSchema, stageSchema])).min(1),
  })
  .superRefine((recipe, context) => {
    for (const { path, message } of referenceProblems(recipe.stages as Step[])) {
      context.addIssue({ code: "custom", path: ["stages", ...path], message });
    }
  })
  .describe("A recipe of training and alignment.");

export interface TrainingRecipe {
  kind: "train";
  model: string;
  out: string;
  seed: number;
  chatTemplate?: string | undefined;
  stages: Step[];
}

export function checkTrainingRecipe(value: unknown, where: string): TrainingRecipe {
  return checkSchema(trainingRecipeSchema, value, where) as unknown as TrainingRecipe;
}

/** The JSON Schema that editors complete recipes with. */
export function trainingRecipeJsonSchema(): unknown {
  return z.toJSONSchema(trainingRecipeSchema, { io: "input", unrepresentable: "any" });
}

export function isRounds(step: Step): step is Rounds {
  return "rounds" in step && !("method" in step);
}

export function nameOf({ name, method }: Stage): string {
  return name ?? method;
}

export const stageReference = "stage:";

/** Names of `stage:NAME` references in the fields that name files or models. */
export function referencesOf(stage: Stage): { field: string; name: string }[] {
  return Object.keys(methodOf(stage.method)?.inputs ?? {}).flatMap((field) =>
    [stage[field]]
      .flat()
      .filter((value): value is string => typeof value === "string" && value.startsWith(stageReference))
      .map((value) => ({ field, name: value.slice(stageReference.length) })),
  );
}

interface Trouble {
  path: (string | number)[];
  message: string;
}

/** Names must be unique, and a reference must lead to an earlier stage that makes what is asked of it. */
function referenceProblems(steps: readonly Step[]): Trouble[] {
  const known = new Map<string, Stage>();
  const troubles: Trouble[] = [];
  const visit = (stage: Stage, path: (string | number)[]) => {
    for (const { field, name } of referencesOf(stage)) {
      const wanted = methodOf(stage.method)!.inputs[field]!;
      const makes = known.has(name) ? methodOf(known.get(name)!.method)!.makes : undefined;
      const fits = wanted === "file" ? makes === "data" : makes === "policy" || makes === "reward";
      if (!fits) troubles.push({ path: [...path, field], message: unfitReference(name, wanted, makes, known) });
    }
    if (known.has(nameOf(stage)))
      troubles.push({ path, message: `two stages called "${nameOf(stage)}"; give one a name` });
    known.set(nameOf(stage), stage);
  };
  for (const [i, step] of steps.entries()) {
    if (!isRounds(step)) visit(step, [i]);
    else for (const [j, stage] of step.stages.entries()) visit(stage, [i, "stages", j]);
  }
  return troubles;
}

function unfitReference(
  name: string,
  wanted: "file" | "model",
  makes: string | undefined,
  known: ReadonlyMap<string, Stage>,
): string {
  const names = [...known.keys()].join(", ") || "none";
  if (makes === undefined) return `no earlier stage "${name}"; there are: ${names}`;
  return `stage "${name}" makes ${makes === "nothing" ? "no files" : `a ${makes}`}, where ${wanted === "file" ? "data" : "a model"} is wanted`;
}

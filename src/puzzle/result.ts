import { z } from "../base/index.js";

const count = z.int().min(0);
const seconds = z.number().min(0);
const nats = z.number().describe("Nats a token.");

const interval = z
  .looseObject({ mean: z.number(), low: z.number(), high: z.number(), n: z.int().min(1).optional() })
  .describe("Mean with its 95 % interval by sequence; n sequences.");

const block = z.looseObject({
  attention: z.looseObject({
    kind: z.enum(["gqa", "linear", "none"]),
    kvHeads: count.optional().describe("Key-value heads of grouped-query attention."),
  }),
  ffn: z.looseObject({
    kind: z.enum(["swiglu", "linear", "none"]),
    width: count.optional().describe("Intermediate width of a SwiGLU."),
  }),
});

const speed = z
  .looseObject({ prefill: z.number().positive(), decode: z.number().positive() })
  .describe("Tokens a second in llama.cpp.");

const stage = z.looseObject({
  name: z.string(),
  seconds,
  peakRssBytes: count.describe("Peak resident memory of the process tree during the stage."),
  cached: z.boolean().describe("Taken from the store; the numbers are those of the run that made it."),
});

const childSchema = z.looseObject({
  child: z.looseObject({
    path: z.string(),
    parameters: count,
    perplexity: z.number().positive(),
    kl: interval.describe("KL(parent || child) in nats a token on the set-aside text."),
    klBeforeDistillation: interval,
    blocks: z.array(block).describe("One per layer, first layer first."),
  }),
  baselines: z.array(
    z.looseObject({
      name: z.string(),
      parameters: count,
      kl: interval,
      klAboveChild: interval.optional().describe("Its KL minus the child's, paired by sequence."),
      klBeforeDistillation: interval.optional(),
      klAboveChildBeforeDistillation: interval.optional().describe("The same before either was distilled."),
      distilled: z.boolean().optional().describe("False: `kl` and `perplexity` are those before distillation."),
      perplexity: z.number().positive(),
    }),
  ),
  search: z.looseObject({
    objective: nats.describe("Least sum of scores under the bounds."),
    bound: nats.describe("Proven lower bound of that sum."),
    gap: z.number().min(0).describe("(objective - bound) / |objective|; 0 is proven optimal."),
    seconds,
    totals: z.record(z.string(), z.number()).optional().describe("What the child costs, by constraint."),
    chosen: z
      .looseObject({ predicted: nats, measured: interval, stands: z.boolean() })
      .optional()
      .describe(
        "The child among the candidates that were put together and measured whole; it need not be the optimum of the sum.",
      ),
  }),
  exports: z.array(
    z.looseObject({
      path: z.string(),
      format: z.enum(["hf", "gguf"]),
      type: z.string().describe("Type of the weights: f32, f16, q8_0."),
      architecture: z.string().optional().describe("What the file names: Llama, DeciLM, llama, deci."),
      maxAbsLogitDifference: z
        .number()
        .min(0)
        .optional()
        .describe("llama.cpp's logits, or the reloaded ones, against ours."),
      kl: nats.optional().describe("For quantised types: KL against our own logits."),
    }),
  ),
  speed: z.looseObject({ parent: speed, child: speed }),
});

/**
 * What `run` and `reshape` print with --json and leave as `result.json`; of several children, the first is at the top and
 * all are in `children`. Later versions may add fields.
 */
export const resultSchema = childSchema.extend({
  parent: z.looseObject({
    path: z.string().optional(),
    chat: z.boolean().optional().describe("Has a chat template."),
    parameters: count,
    perplexity: z.number().positive(),
  }),
  children: z
    .array(
      childSchema.extend({
        name: z.string(),
        budget: z.string().describe("Its bounds as they were asked for."),
        report: z.string().describe("Its own page."),
      }),
    )
    .optional()
    .describe("Where the run made several: each with its search, baselines, exports and speeds."),
  stages: z.array(stage),
  peakRssBytes: count.describe("Peak resident memory of the process tree over the whole run."),
  seconds,
});

export type RunResult = z.output<typeof resultSchema>;

/** JSON Schema of `result.json`, kept as `schemas/result.schema.json`. */
export function resultJsonSchema(): Record<string, unknown> {
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "Result of a reshaping run",
    ...z.toJSONSchema(resultSchema, { target: "draft-2020-12", io: "output" }),
  };
}

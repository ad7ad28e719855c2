import { formatCount } from "../base/index.js";
import { type BlockConfig, type ModelConfig, modelParameters, renderModelCard } from "../models/index.js";
import type { RunContext } from "./context.js";
import type { ChildPlan } from "./pricing.js";
import type { Child } from "./run.js";
import type { Evaluation } from "./stages/evaluate.js";
import type { Prepared } from "./stages/prepare.js";
import { packageVersion } from "./version.js";

export interface CardSource {
  prepared: Prepared;
  parent: Evaluation;
  child: Child;
  plan: ChildPlan;
}

/** The child's model card: what was changed, from what, measured how. */
export function cardOf(context: RunContext, { prepared, parent, child, plan }: CardSource): string {
  const { recipe, parent: model } = context;
  const config: ModelConfig = { ...model.config, blocks: child.candidate.blocks };
  const { legal, licence, name } = model.sidecars;
  return renderModelCard({
    name: `${name}, reshaped to ${formatCount(modelParameters(config))} parameters`,
    parent: { name, parameters: modelParameters(model.config) },
    config,
    ...(licence !== undefined && { licence }),
    legalFiles: legal.map((file) => file.name),
    changes: changesOf(context, child, plan),
    measured: {
      columns: ["", "parameters", "perplexity", "KL from the parent, nats a token (95 % interval)"],
      rows: [
        row("parent", model.config.blocks, context, parent.perplexity, "0"),
        row(
          "child before distillation",
          child.candidate.blocks,
          context,
          child.before.perplexity,
          interval(child.before),
        ),
        row("child", child.candidate.blocks, context, child.after.perplexity, interval(child.after)),
      ],
      notes: [
        `Text: ${prepared.origin.evaluate}, ${prepared.sequences.evaluate.count} sequences of ${recipe.length} tokens; intervals by sequence.`,
      ],
    },
    version: packageVersion(),
  });
}

function changesOf({ parent }: RunContext, { candidate, distilled }: Child, { text }: ChildPlan): string[] {
  const changed = candidate.blocks.filter(
    (block, i) => JSON.stringify(block) !== JSON.stringify(parent.config.blocks[i]),
  );
  return [
    `Blocks replaced by smaller variants in ${changed.length} of ${candidate.blocks.length} layers, chosen under the budget ${text} by an exact search (mixed-integer program) over replace-one-block KL scores.`,
    "Every layer refitted in closed form, in sequence, on the child's own inputs.",
    ...(distilled
      ? [
          `Distilled from the parent on ${formatCount(distilled.curve.steps * distilled.curve.tokensPerStep)} tokens: hidden-state cosine and KL, no language-modelling loss.`,
        ]
      : []),
  ];
}

function row(name: string, blocks: BlockConfig[], { parent }: RunContext, perplexity: number, kl: string): string[] {
  return [name, modelParameters({ ...parent.config, blocks }).toLocaleString("en-US"), perplexity.toFixed(3), kl];
}

function interval({ kl }: Evaluation): string {
  return `${kl.mean.toFixed(4)} (${kl.low.toFixed(4)} to ${kl.high.toFixed(4)})`;
}

import type { z } from "../../base/index.js";
import { distill } from "./distill.js";
import { dpo } from "./dpo.js";
import { grpo } from "./grpo.js";
import { merge } from "./merge.js";
import type { Method } from "./method.js";
import { pretrain } from "./pretrain.js";
import { rank } from "./rank.js";
import { refusalData } from "./refusal-data.js";
import { refusals } from "./refusals.js";
import { reinforce } from "./reinforce.js";
import { reward } from "./reward.js";
import { rpo } from "./rpo.js";
import { score } from "./score.js";
import { sft } from "./sft.js";

type AnyMethod = Method<z.ZodRawShape>;

/** Every method, by the name of its command and of its stage. */
export const methods: Readonly<Record<string, AnyMethod>> = {
  pretrain: pretrain as unknown as AnyMethod,
  sft: sft as unknown as AnyMethod,
  distill: distill as unknown as AnyMethod,
  reward: reward as unknown as AnyMethod,
  score: score as unknown as AnyMethod,
  rank: rank as unknown as AnyMethod,
  merge: merge as unknown as AnyMethod,
  dpo: dpo as unknown as AnyMethod,
  rpo: rpo as unknown as AnyMethod,
  grpo: grpo as unknown as AnyMethod,
  reinforce: reinforce as unknown as AnyMethod,
  "refusal-data": refusalData as unknown as AnyMethod,
  refusals: refusals as unknown as AnyMethod,
};

export function methodOf(name: string): AnyMethod | undefined {
  return methods[name];
}

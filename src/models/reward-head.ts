/**
 * @module The head of a reward model and how its directory says what it is: transformers' `LlamaForSequenceClassification`,
 * that is the decoder without its output layer and `score.weight` [attributes, H].
 *
 * Departures: `score.bias`, where there is one, and `reward_weights` in config.json are ours; transformers warns of the
 * first and leaves it out, so that its scores differ by a constant for each attribute.
 */
import { checkSchema, EspalierError, z } from "../base/index.js";
import type { TensorFile, TensorPlan } from "../formats/index.js";
import { type F32Tensor, f32Tensor } from "../tensor/index.js";
import type { Model } from "./config.js";
import { overlayModel } from "./overlay.js";
import { checkFinite } from "./weights.js";

/** A linear layer from the last hidden state of an answer to its attributes. */
export interface RewardHead {
  /** [A, H] */
  weight: F32Tensor;
  /** [A], where the head has one. */
  bias?: F32Tensor;
  /** Names of the attributes, A. */
  attributes: readonly string[];
  /** What each counts for in the one reward, A. */
  weights: readonly number[];
}

/** A model that judges answers. */
export interface RewardModel {
  /** The decoder; what would be its output layer is left out. */
  body: Model;
  head: RewardHead;
}

/** Names in files and in graphs. */
export const rewardHeadNames = { weight: "score.weight", bias: "score.bias" } as const;

/** A head of zeros: every answer begins with a reward of 0. Weights default to equal shares. */
export function createRewardHead(
  hiddenSize: number,
  attributes: readonly string[],
  { bias = false, weights }: { bias?: boolean; weights?: readonly number[] } = {},
): RewardHead {
  const count = attributes.length;
  if (weights && weights.length !== count) {
    const where = "attribute weights";
    throw new EspalierError({ where, expected: `${count}`, found: `${weights.length}`, exitCode: 2 });
  }
  return {
    weight: f32Tensor([count, hiddenSize]),
    ...(bias && { bias: f32Tensor([count]) }),
    attributes,
    weights: weights ?? attributes.map(() => 1 / count),
  };
}

/** The tensors of a head by their names in files. */
export function rewardHeadTensors({ weight, bias }: RewardHead): Record<string, F32Tensor> {
  return { [rewardHeadNames.weight]: weight, ...(bias && { [rewardHeadNames.bias]: bias }) };
}

/** The model without its output layer: with tied embeddings there is none of its own. */
export function bodyOf(model: Model): Model {
  return model.config.tiedEmbeddings
    ? model
    : overlayModel(model, { ...model.config, tiedEmbeddings: true }, new Map());
}

const causal = "ForCausalLM";
const classifying = "ForSequenceClassification";

export function isRewardConfig(json: unknown): boolean {
  const { architectures } = (json ?? {}) as { architectures?: unknown };
  return Array.isArray(architectures) && String(architectures[0]).endsWith(classifying);
}

/**
 * `config.json` of the model with the head. transformers reads the last token that is not padding: where the padding token
 * ends turns too, it would pass over the end of the answer, so that none is named and batches of one are read.
 */
export function rewardConfigToHub(hub: Record<string, unknown>, head: RewardHead): Record<string, unknown> {
  const { auto_map: _, pad_token_id: pad, ...rest } = hub;
  const ends = [hub.eos_token_id].flat();
  const names = head.attributes.map((name, i) => [String(i), name] as const);
  return {
    ...rest,
    architectures: (hub.architectures as string[]).map((name) => name.replace(causal, classifying)),
    id2label: Object.fromEntries(names),
    label2id: Object.fromEntries(head.attributes.map((name, i) => [name, i])),
    ...(pad !== undefined && { pad_token_id: ends.includes(pad) ? null : pad }),
    reward_weights: head.weights,
  };
}

export function rewardHeadPlans(head: RewardHead): TensorPlan[] {
  return Object.entries(rewardHeadTensors(head)).map(([name, { shape, data }]) => ({
    name,
    shape,
    read: async () => data,
  }));
}

const headSchema = z.looseObject({
  id2label: z.record(z.string(), z.string()).nullish(),
  reward_weights: z.array(z.number()).nullish(),
});

/** What config.json says of the head, and the rest of it as a language model's. */
export function rewardConfigFromHub(json: unknown, where: string) {
  if (!isRewardConfig(json)) {
    const found = String([(json as { architectures?: unknown } | null)?.architectures].flat()[0] ?? "none");
    const expected = `a reward model: an architecture that ends with ${classifying}`;
    throw new EspalierError({ where, expected, found, fix: "train one with espalier align reward", exitCode: 2 });
  }
  const { reward_weights: weights, id2label, ...rest } = checkSchema(headSchema, json, where);
  const { architectures } = rest as unknown as { architectures: string[] };
  const labels = Object.entries(id2label ?? {}).sort(([a], [b]) => Number(a) - Number(b));
  return {
    body: {
      ...rest,
      architectures: architectures.map((name) => name.replace(classifying, causal)),
      tie_word_embeddings: true,
    },
    attributes: labels.map(([, name]) => name),
    weights: weights ?? undefined,
  };
}

/** @throws EspalierError where tensors and config.json contradict */
export async function readRewardHead(
  file: TensorFile,
  { attributes, weights }: Pick<ReturnType<typeof rewardConfigFromHub>, "attributes" | "weights">,
  hiddenSize: number,
  where: string,
): Promise<RewardHead> {
  const { weight: weightName, bias: biasName } = rewardHeadNames;
  const shape = file.info(weightName)?.shape ?? [];
  const count = attributes.length || (shape[0] ?? 0);
  const check = (name: string, expected: readonly number[]) => {
    const found = file.info(name)?.shape;
    if (found?.join() === expected.join()) return;
    throw new EspalierError({
      where: `${where} ${name}`,
      expected: `[${expected}]`,
      found: found ? `[${found}]` : "none",
      fix: "configuration and weights must be of the same reward model",
    });
  };
  check(weightName, [count, hiddenSize]);
  const hasBias = file.info(biasName) !== undefined;
  if (hasBias) check(biasName, [count]);
  const read = async (name: string, dims: readonly number[]) => {
    const values = await file.read(name);
    checkFinite(values, `${where} tensor ${name}`);
    return f32Tensor(dims, values);
  };
  const names = attributes.length > 0 ? attributes : Array.from({ length: count }, (_, i) => `attribute ${i}`);
  const { weights: shares } = createRewardHead(hiddenSize, names, weights ? { weights } : {});
  return {
    weight: await read(weightName, [count, hiddenSize]),
    ...(hasBias && { bias: await read(biasName, [count]) }),
    attributes: names,
    weights: shares,
  };
}

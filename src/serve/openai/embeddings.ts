/** @module POST /v1/embeddings. */
import { z } from "../../base/index.js";
import type { LoadedModel } from "../../llamacpp/index.js";
import type { Exchange, Reply } from "../http.js";
import { checkPromptLength, promptIds } from "../prompt.js";
import { invalid } from "../refusal.js";
import { harmless, parseRequest } from "../schema.js";
import { checkAnswers, type Service, type Use } from "../service.js";

const tokenIds = z.array(z.int().min(0)).min(1);

export const embeddingSchema = z.strictObject({
  model: z.string(),
  input: z.union([z.string().min(1), tokenIds, z.array(z.string().min(1)).min(1), z.array(tokenIds).min(1)]),
  encoding_format: z.enum(["float", "base64"]).default("float"),
  dimensions: z.int().min(1).optional(),
  user: harmless,
});

type EmbeddingBody = z.output<typeof embeddingSchema>;

export async function embeddings(service: Service, { body, signal }: Exchange): Promise<Reply> {
  const fields = parseRequest(embeddingSchema, body);
  const inputs = inputList(fields.input);
  checkAnswers(inputs.length, "input", { ...service.limits, maxAnswers: 2048 });
  const vectors: Vector[] = [];
  const made = service.withModel(fields.model, { signal }, 1, (use) => embedAll(use, inputs, fields));
  for await (const vector of made) vectors.push(vector);
  const tokens = vectors.reduce((sum, vector) => sum + vector.tokens, 0);
  const data = vectors.map(({ values }, index) => ({
    object: "embedding",
    index,
    embedding: fields.encoding_format === "base64" ? base64(values) : [...values],
  }));
  const usage = { prompt_tokens: tokens, total_tokens: tokens };
  return { kind: "json", value: { object: "list", model: fields.model, data, usage } };
}

interface Vector {
  values: Float32Array;
  tokens: number;
}

async function* embedAll(
  { model, signal }: Use,
  inputs: readonly (string | readonly number[])[],
  { dimensions }: EmbeddingBody,
): AsyncIterable<Vector> {
  const { embeddingLength } = model.info;
  if (dimensions !== undefined && dimensions !== embeddingLength) {
    throw invalid("dimensions", `${embeddingLength}, the model's own`, String(dimensions));
  }
  // All are checked before the first is computed.
  const ids = await Promise.all(inputs.map((input) => readInput(model, input)));
  for (const input of ids) {
    signal.throwIfAborted();
    yield { values: await model.embed(input), tokens: input.length };
  }
}

async function readInput(model: LoadedModel, input: string | readonly number[]): Promise<readonly number[]> {
  const ids = typeof input === "string" ? await promptIds(model, input) : input;
  const wrong = ids.find((id) => id >= model.info.vocabSize);
  if (wrong !== undefined) throw invalid("input", `token ids below ${model.info.vocabSize}`, String(wrong));
  checkPromptLength(model, ids.length, "input");
  return ids;
}

function inputList(input: EmbeddingBody["input"]): (string | readonly number[])[] {
  if (typeof input === "string") return [input];
  return typeof input[0] === "number" ? [input as number[]] : (input as (string | number[])[]);
}

/** Little-endian floats of 32 bits. */
function base64(values: Float32Array): string {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [i, value] of values.entries()) bytes.writeFloatLE(value, i * 4);
  return bytes.toString("base64");
}

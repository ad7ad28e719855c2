/** @module One model in memory with its context, and what llama.cpp says about it. */
import { stat } from "node:fs/promises";
import { EspalierError } from "../../base/index.js";
import type { Llama, LlamaContext, LlamaModel, Token } from "../binding.js";
import type { LoadOptions, ModelInfo } from "../inference.js";
import { type Internals, resolveInternals } from "../native-context.js";
import { threadsForBytes } from "../threads.js";
import type { LoadParams } from "./protocol.js";

/** Tokens that llama.cpp evaluates at once. */
export const batchSize = 512;

export interface HeldModel extends Internals {
  gguf: string;
  llama: Llama;
  model: LlamaModel;
  threads: number;
  contextSize: number;
  sequences: number;
  vocabSize: number;
  /** A context with the same options that gives embeddings, made when it is first asked for. */
  embeddings(): Promise<Internals>;
}

/** The limits that a model brings itself. */
const mostContext = 4096;
const defaultSequences = 4;

export async function holdModel(
  llama: Llama,
  { gguf, gpu = false, cache = "f16", sequences = defaultSequences, threads, contextSize }: LoadParams,
  onProgress: (share: number) => void,
): Promise<HeldModel> {
  const model = await llama.loadModel({
    modelPath: gguf,
    ...(gpu === false && { gpuLayers: 0 }),
    onLoadProgress: onProgress,
  });
  const held = {
    gguf,
    llama,
    model,
    threads: threads ?? threadsForBytes((await stat(gguf)).size, llama.cpuMathCores),
    contextSize: contextSize ?? Math.min(model.trainContextSize, mostContext),
    sequences,
    vocabSize: vocabSizeOf(model),
  };
  const context = await createContext(held, cache);
  let embedding: Promise<Internals> | undefined;
  return {
    ...held,
    ...resolveInternals(context, model),
    embeddings() {
      embedding ??= createEmbeddingContext(held);
      return embedding;
    },
  };
}

type ContextFacts = Pick<HeldModel, "model" | "threads" | "contextSize" | "sequences">;

async function createContext(
  { model, contextSize, sequences, threads }: ContextFacts,
  cache: NonNullable<LoadOptions["cache"]>,
): Promise<LlamaContext> {
  return model.createContext({
    contextSize,
    sequences,
    threads,
    batchSize: Math.max(sequences, batchSize),
    failedCreationRemedy: false,
    ...(cache === "f32"
      ? { flashAttention: false, experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32" }
      : { flashAttention: "auto" }),
  });
}

async function createEmbeddingContext({ model, contextSize, threads }: ContextFacts): Promise<Internals> {
  const context = await model.createEmbeddingContext({ contextSize, batchSize: contextSize, threads });
  const { _llamaContext } = context as unknown as { _llamaContext: unknown };
  return resolveInternals(_llamaContext ?? {}, model);
}

function vocabSizeOf({ fileInfo }: LlamaModel): number {
  const embedding = fileInfo.fullTensorInfo?.find(({ name }) => name === "token_embd.weight");
  if (!embedding) throw new Error("no token_embd.weight");
  return Number(embedding.dimensions[1]);
}

export function describeModel(held: HeldModel, extraBytes: number): ModelInfo {
  const { gguf, model, native, contextSize, sequences, vocabSize } = held;
  const { general, tokenizer } = model.fileInfo.metadata;
  const template = tokenizer?.chat_template;
  const { bosString, eosString, shouldPrependBosToken } = model.tokens;
  return {
    gguf,
    bytes: model.size,
    memoryBytes: memoryOf(held) + extraBytes,
    architecture: String(general.architecture),
    ...(general.name !== undefined && { name: general.name }),
    parameters: native.getTotalParameters(),
    fileType: fileTypeOf(native.getModelDescription()),
    contextSize,
    trainContextSize: model.trainContextSize,
    sequences,
    embeddingLength: model.embeddingVectorSize,
    vocabSize,
    ...(typeof template === "string" && { chatTemplate: template }),
    ...(bosString !== null && { bosToken: bosString }),
    ...(eosString !== null && { eosToken: eosString }),
    endIds: endIdsOf(held),
    addBos: shouldPrependBosToken,
  };
}

/** Weights, cache and buffers. */
export function memoryOf({ ctx, native }: Internals): number {
  return [ctx.getMemoryBreakdown(), native.getMemoryBreakdown()].reduce(
    (sum, { cpuRam, gpuVram }) => sum + cpuRam + gpuVram,
    0,
  );
}

/** "llama 256M Q4_1 - Medium" -> "Q4_1_M": the name that files carry. */
function fileTypeOf(description: string): string {
  const [type = "", size] = description.split(" ").slice(2).join(" ").split(" - ");
  const plain = type.replace(/^(?:all|mostly) /, "");
  return size === undefined ? plain : `${plain}_${size[0]}`;
}

/** Ids after which an answer is over. */
export function endIdsOf({ model, native, vocabSize }: HeldModel): number[] {
  const ends = Array.from({ length: vocabSize }, (_, id) => id).filter((id) => native.isEogToken(id));
  for (const id of [model.tokens.eos, model.tokens.eot]) if (id !== null && !ends.includes(id)) ends.push(id);
  return ends;
}

export function tokenize({ model }: HeldModel, text: string, special: boolean): number[] {
  return [...model.tokenize(text, special)];
}

export function detokenize({ native }: Pick<HeldModel, "native">, ids: readonly number[], special: boolean): string {
  return ids.length === 0 ? "" : native.detokenize(Uint32Array.from(ids as Token[]), special);
}

/** Ids from outside end the process where llama.cpp looks them up. */
export function checkIds({ gguf, vocabSize }: HeldModel, ids: readonly number[], what: string): void {
  const bad = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
  if (bad === undefined) return;
  throw new EspalierError({
    where: `${gguf}: ${what}`,
    expected: `token ids from 0 to ${vocabSize - 1}`,
    found: String(bad),
    exitCode: 2,
  });
}

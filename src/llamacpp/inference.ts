/**
 * @module What concurrent generation with llama.cpp offers: models stay loaded in a process of their own, and the requests
 * for one model share its batches.
 */

/** How the next token is drawn. Defaults are those of the request, not of llama.cpp: greedy, nothing penalised. */
export interface Sampling {
  /** 0 takes the likeliest token. Defaults to 0. */
  temperature?: number;
  /** Defaults to 1: all tokens. */
  topP?: number;
  /** Defaults to 0: all tokens. */
  topK?: number;
  /** Defaults to 0. */
  minP?: number;
  /** Seed of the draws; without it every request draws differently. */
  seed?: number;
  /** Defaults to 0. */
  frequencyPenalty?: number;
  /** Defaults to 0. */
  presencePenalty?: number;
  /** Defaults to 1: none. */
  repeatPenalty?: number;
  /** Added to the logits of tokens, by id. */
  logitBias?: Readonly<Record<number, number>>;
}

/** What the text must match. */
export type Grammar = { kind: "json" } | { kind: "schema"; schema: unknown } | { kind: "gbnf"; text: string };

export interface CompletionRequest {
  /** Token ids, start token included where the model wants one. */
  prompt: readonly number[];
  maxTokens: number;
  sampling?: Sampling;
  /** Texts that end the answer; they are not part of it. */
  stop?: readonly string[];
  grammar?: Grammar;
  /** Log-probability of each generated token, with those of so many likeliest ones beside it (0: none beside). */
  logprobs?: number;
  /** The same for every token of the prompt but the first. */
  promptLogprobs?: number;
  /** Ends the request; what was generated comes back with finish "aborted". */
  signal?: AbortSignal;
  /** Called for each piece of text that is certain: whole characters, and no beginning of a stop text. */
  onText?: (text: string, tokens: readonly TokenLogprob[]) => void;
}

export interface TokenLogprob {
  id: number;
  text: string;
  /** Natural logarithm; before temperature, penalties and bias. Absent unless asked for. */
  logprob?: number;
  /** Likeliest tokens first. */
  top?: readonly { id: number; text: string; logprob: number }[];
}

export interface CompletionTimings {
  /** Tokens of the prompt that were evaluated, and those that the cache held already. */
  promptTokens: number;
  cachedTokens: number;
  /** Waiting for a sequence. */
  queueMs: number;
  promptMs: number;
  /** From the call to the first generated token. */
  firstTokenMs: number;
  generatedTokens: number;
  generateMs: number;
  /** With a draft model: tokens it proposed, and those of them that stood. */
  draftedTokens?: number;
  acceptedTokens?: number;
}

export interface Completion {
  text: string;
  ids: readonly number[];
  tokens: readonly TokenLogprob[];
  /** Tokens of the prompt, when `promptLogprobs` asked for them; the first has no log-probability. */
  promptTokens?: readonly TokenLogprob[];
  finish: "stop" | "length" | "aborted";
  /** The stop text that ended it, if one did. */
  stopText?: string;
  timings: CompletionTimings;
}

export interface LoadOptions {
  /** Tokens of context for each sequence. Defaults to the model's own, at most 4,096. */
  contextSize?: number;
  /** Requests that run at once; the others wait. Defaults to 4. */
  sequences?: number;
  /** Threads of one evaluation. Defaults to one for each physical core. */
  threads?: number;
  /** Compute layer. Defaults to false: the CPU. */
  gpu?: false | "cuda" | "vulkan" | "metal";
  /** A smaller model of the same vocabulary that proposes tokens. */
  draft?: string;
  /** Type of the key/value cache. Defaults to "f16"; "f32" with no flash attention gives the exact log-probabilities. */
  cache?: "f16" | "f32";
  signal?: AbortSignal;
  onProgress?: (share: number) => void;
}

export interface ModelInfo {
  /** The file. */
  gguf: string;
  bytes: number;
  /** Bytes that the loaded model takes, cache and buffers included. */
  memoryBytes: number;
  architecture: string;
  name?: string;
  parameters: number;
  /** Such as "Q8_0". */
  fileType: string;
  contextSize: number;
  trainContextSize: number;
  sequences: number;
  embeddingLength: number;
  vocabSize: number;
  /** Jinja text of the file, if it has one. */
  chatTemplate?: string;
  bosToken?: string;
  eosToken?: string;
  /** Ids after which an answer is over. */
  endIds: readonly number[];
  /** The start token comes before every text. */
  addBos: boolean;
}

export interface LoadedModel {
  readonly info: ModelInfo;
  /** Requests that run, and those that wait for a sequence. */
  load(): { running: number; waiting: number };
  /** Special tokens in the text are read as such only if asked; the start token is never added. */
  tokenize(text: string, options?: { special?: boolean }): Promise<number[]>;
  detokenize(ids: readonly number[], options?: { special?: boolean }): Promise<string>;
  complete(request: CompletionRequest): Promise<Completion>;
  /** Normalised to length 1. */
  embed(ids: readonly number[]): Promise<Float32Array>;
  unload(): Promise<void>;
}

/**
 * Holds one process of llama.cpp for each model. When a process ends by itself, its requests fail with an EspalierError
 * that names the file and says why, and the next request starts it anew.
 */
export interface InferenceEngine {
  loadModel(gguf: string, options?: LoadOptions): Promise<LoadedModel>;
  dispose(): Promise<void>;
}

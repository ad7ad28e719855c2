/** @module The messages between this process and the one that holds llama.cpp. Plain data, sent with structured clone. */

/** Which positions of each sequence are asked for: all, the last `n`, or those listed. */
export type Positions = "all" | { last: number } | readonly number[];

export interface ContextOptions {
  /** Compute layer of llama.cpp. Defaults to false: the CPU. */
  gpu: false | "cuda" | "vulkan" | "metal";
  /** Threads of one evaluation; 0 means one for each physical core, and a single one for files below 32 MiB. */
  threads: number;
}

/** One line of values of `logits`, copied out of llama.cpp. */
export interface LogitsPart {
  sequence: number;
  /** Positions in the sequence, one for each row. */
  positions: number[];
  /** [positions, vocabulary] */
  values: Float32Array;
}

/** Sequences that one batch decodes together, each with so many tokens before the one that is evaluated. */
export interface DecodePoint {
  batch: number;
  depth: number;
}

/** What is timed on one file. */
export interface TimedFile {
  gguf: string;
  /** Lengths of prompts, in tokens; a prompt is evaluated alone, in batches of up to 512. */
  prefill: number[];
  decode: DecodePoint[];
  /** Threads of a decoding step. Defaults to those of every evaluation. */
  stepThreads?: number;
}

export interface TimeParams {
  files: TimedFile[];
  repeats: number;
  /** A sample repeats its work until it has lasted this long. */
  sampleSeconds: number;
  seed: number;
  /** Threads of every evaluation, whatever the size of the file. */
  threads: number;
}

/** Seconds: one list of rounds for each point of the file, in its order. */
export interface TimeSamples {
  /** Seconds of the whole prompt. */
  prefill: number[][];
  /** Seconds of one step, which gives every sequence of the batch one token. */
  decode: number[][];
}

export interface GenerateParams {
  gguf: string;
  prompt: string | number[];
  maxTokens: number;
  temperature: number;
  topP: number;
  seed: number;
}

export interface QuantiseParams {
  source: string;
  target: string;
  /** `llama_ftype`. */
  fileType: number;
  /** Mean squares of the inputs of matrices, by tensor. */
  importance?: Record<string, Float32Array>;
  /** `ggml_type` of the tensors whose names match; the first pattern that does decides. Not for matrices of heads and embeddings. */
  overrides?: [pattern: string, type: number][];
  /** `ggml_type` of the head. */
  head?: number;
  /** `ggml_type` of the embedding table. */
  embedding?: number;
  /** Every matrix in the base type of the mixture. */
  pure?: boolean;
}

export interface SensitivityParams {
  /** A model in F32, F16 or BF16. */
  gguf: string;
  sequences: number[][];
  /** Matrices, each with the `ggml_type`s that it is tried in. */
  tensors: { name: string; types: number[] }[];
  /** Mean squares of the inputs of matrices, by tensor. */
  importance?: Record<string, Float32Array>;
}

export interface Importance {
  /** Tokens that it was measured on. */
  tokens: number;
  /** Mean square of each input of a matrix, by tensor. */
  meanSquares: Record<string, Float32Array>;
}

/** A file against the reference on one sequence. */
export interface Comparison {
  /** Tokens that were predicted: all but the first. */
  tokens: number;
  /** Negative log-likelihood of the predicted tokens, nats, of the reference and of the file. */
  referenceNll: number;
  nll: number;
  /** Sum of KL(reference || file) over the positions that predict a token, nats. */
  kl: number;
  /** Positions at which both have the same likeliest token. */
  sameTop: number;
}

/** What the process can do: parameters, what it sends on the way, and its result. */
export interface Methods {
  version: { params: Record<string, never>; part: never; result: LlamaCppVersion };
  tokenize: { params: { gguf: string; texts: string[]; special: boolean }; part: never; result: number[][] };
  logits: {
    params: { gguf: string; sequences: number[][]; positions: Positions; adapter?: string };
    part: LogitsPart;
    result: { vocabSize: number };
  };
  time: { params: TimeParams; part: { done: number; total: number }; result: TimeSamples[] };
  generate: { params: GenerateParams; part: { text: string }; result: Generated };
  quantise: {
    params: QuantiseParams;
    part: { done: number; total: number; tensor: string };
    /** What llama.cpp warned of. */
    result: { notices: string[] };
  };
  importance: {
    params: { gguf: string; sequences: number[][] };
    part: { done: number; total: number };
    result: Importance;
  };
  compare: {
    params: { reference: string; ggufs: string[]; sequences: number[][] };
    part: { done: number; total: number };
    /** For each file, a comparison of each sequence. */
    result: Comparison[][];
  };
  sensitivity: {
    params: SensitivityParams;
    part: { done: number; total: number };
    /** Mean KL of each sequence, by tensor and by type. */
    result: number[][][];
  };
}

export interface LlamaCppVersion {
  /** Version of the node-llama-cpp package. */
  package: string;
  /** Release of llama.cpp that it brings. */
  llamaCpp: string;
  /** `false` for the CPU. */
  gpu: string | false;
  devices: string[];
  /** Physical cores as llama.cpp counts them. */
  mathCores: number;
}

export interface Generated {
  text: string;
  ids: number[];
  promptIds: number[];
  tokensPerSecond: number;
}

export type Request = {
  [M in keyof Methods]: { id: number; method: M; params: Methods[M]["params"]; context: ContextOptions };
}[keyof Methods];

export type Reply =
  | { id: number; kind: "part"; part: unknown }
  | { id: number; kind: "done"; result: unknown }
  | { id: number; kind: "error"; message: string };

import type { Interval, OnEvent } from "../base/index.js";
import type { LlamaCppTools } from "../llamacpp/index.js";
import type { FileType, QuantType } from "../plan/index.js";

/** A GGUF file ready to be quantised, and what is known of it. */
export interface QuantiseSource {
  /** The `.gguf` file. */
  gguf: string;
  /** Types of its matrices, the most frequent first. */
  types: readonly string[];
}

/** A type for the tensors whose names match a regular expression. */
export interface TypeOverride {
  pattern: string;
  type: QuantType;
}

export interface QuantiseOptions {
  /** A mixture of llama.cpp, such as `Q4_K_M`. */
  type: FileType;
  out: string;
  overrides?: readonly TypeOverride[];
  /** Mean squares of what enters the matrices, by tensor. Defaults to none. */
  importance?: Readonly<Record<string, Float32Array>>;
  /** Token ids on which file and source are compared. Defaults to none: nothing is compared. */
  sequences?: number[][];
  tools: LlamaCppTools;
  onEvent?: OnEvent;
  signal?: AbortSignal;
}

export interface Quantised {
  path: string;
  type: FileType;
  /** Bytes that the rules of the quantiser foretold; absent for an architecture whose rules are not known. */
  predictedBytes?: number;
  bytes: number;
  /** Bits a weight, all tensors together. */
  bitsPerWeight: number;
  /** Tensors by type, in the order of their bytes. */
  tensors: { type: string; count: number; bytes: number }[];
  imatrix: boolean;
  compared?: Compared;
  notices: string[];
}

/** A file against its source on the same sequences; intervals of 95 % by sequence. */
export interface Compared {
  sequences: number;
  /** Predicted tokens. */
  tokens: number;
  /** Mean KL(source || file), nats a token. */
  kl: Interval;
  /** Share of positions with the same likeliest token. */
  sameTop: Interval;
  perplexity: { source: number; file: number; ratio: Interval };
}

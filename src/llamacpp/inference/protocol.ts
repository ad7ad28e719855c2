/** @module The messages between the engine and a model's process. Plain data, sent with structured clone. */
import type { Problem } from "../../base/index.js";
import type { Completion, CompletionRequest, LoadOptions, ModelInfo, TokenLogprob } from "../inference.js";

export type LoadParams = { gguf: string } & Omit<LoadOptions, "signal" | "onProgress">;

/** A request without what cannot be sent; pieces come only where somebody listens. */
export type PlainRequest = Omit<CompletionRequest, "signal" | "onText"> & {
  stream: boolean;
  /** The signal had come before the request was sent. */
  aborted: boolean;
};

export interface Calls {
  load: { params: LoadParams; result: ModelInfo };
  tokenize: { params: { text: string; special: boolean }; result: number[] };
  detokenize: { params: { ids: readonly number[]; special: boolean }; result: string };
  complete: { params: PlainRequest; result: Completion };
  embed: { params: { ids: readonly number[] }; result: Float32Array };
}

export type Call = { [M in keyof Calls]: { id: number; method: M; params: Calls[M]["params"] } }[keyof Calls];

export type ToWorker = Call | { method: "abort"; id: number };

/** Text of one request that has become certain. */
export interface Piece {
  id: number;
  text: string;
  tokens: TokenLogprob[];
}

export type FromWorker =
  | { kind: "progress"; id: number; share: number }
  /** Of all requests, step by step: one message for a batch costs less than one for each of its tokens. */
  | { kind: "pieces"; pieces: Piece[] }
  | { kind: "done"; id: number; result: unknown }
  | { kind: "error"; id: number; problem: Omit<Problem, "cause"> };

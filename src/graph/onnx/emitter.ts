import type { HostTensor } from "../../tensor/index.js";
import type { GraphDType, Value } from "../types.js";

/** An ONNX attribute; ints and floats are different fields of the format. */
export type Attribute =
  | { readonly int: number }
  | { readonly float: number }
  | { readonly ints: readonly number[] }
  | { readonly string: string };

export interface OnnxNode {
  readonly opType: string;
  readonly domain: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: Readonly<Record<string, Attribute>>;
}

export interface EmitOptions {
  /** Defaults to "" (ai.onnx). */
  readonly domain?: string;
  readonly attributes?: Readonly<Record<string, Attribute>>;
  /** How many outputs, or which of them are wanted (an unwanted one gets no name). Defaults to 1. */
  readonly outputs?: number | readonly boolean[];
}

/** What an operator's emission may call. */
export interface Emitter {
  /** Adds an ONNX node; an input `""` is an absent optional one. Returns the names of its outputs. */
  node(opType: string, inputs: readonly string[], options?: EmitOptions): readonly string[];
  /** A node with one output. */
  one(opType: string, inputs: readonly string[], options?: EmitOptions): string;
  /** An i64 vector (shapes, axes). */
  ints(values: readonly number[]): string;
  i64(values: readonly number[], shape: readonly number[]): string;
  scalar(value: number, dtype: GraphDType): string;
  initializer(tensor: HostTensor): string;
  /** Whether anything reads the value; by-products nobody reads are not asked of ONNX Runtime. */
  isRead(value: Value): boolean;
}

/** Contrib operators of ONNX Runtime. */
export const microsoft = "com.microsoft";

import type { HostTensor, Shape } from "../tensor/index.js";
import type { OpKind, OpParams } from "./ops/params.js";

/** Element types that graphs compute in; i8 and u8 are read by products in 8 bits alone. */
export type GraphDType = "f32" | "i64" | "i32" | "i8" | "u8" | "bool";

export interface TensorType {
  readonly dtype: GraphDType;
  readonly shape: Shape;
}

/** One SSA value: assigned once, by an input, a constant or a node. */
export interface Value extends TensorType {
  readonly id: number;
}

export interface NodeOf<K extends OpKind> {
  readonly kind: K;
  readonly inputs: readonly Value[];
  readonly params: OpParams[K];
  readonly outputs: readonly Value[];
}

/** An operation; a union over kinds, so that `kind` tells the type of `params`. */
export type Node = { [K in OpKind]: NodeOf<K> }[OpKind];

export interface NamedValue {
  readonly name: string;
  readonly value: Value;
}

export interface Constant {
  readonly value: Value;
  readonly tensor: HostTensor;
}

/** A program as plain data: nodes stand after the nodes they read. */
export interface Graph {
  readonly name: string;
  readonly inputs: readonly NamedValue[];
  readonly constants: readonly Constant[];
  readonly nodes: readonly Node[];
  readonly outputs: readonly NamedValue[];
}

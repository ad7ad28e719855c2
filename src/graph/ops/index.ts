import { attention } from "./attention.js";
import type { OpDef } from "./def.js";
import { elementwise } from "./elementwise.js";
import { int8 } from "./int8.js";
import { products } from "./matmul.js";
import { movement } from "./movement.js";
import { networks } from "./nn.js";
import type { OpKind } from "./params.js";
import { reductions } from "./reduce.js";

/** The operator table: total by construction, so that an operator without a rule does not compile. */
export const ops: { readonly [K in OpKind]: OpDef<K> } = {
  ...elementwise,
  ...products,
  ...int8,
  ...reductions,
  ...movement,
  ...networks,
  ...attention,
};

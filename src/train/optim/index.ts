export { type AdamWOptions, adamw } from "./adamw.js";
export { type SgdOptions, sgd } from "./sgd.js";
export type { Optimiser, OptimiserState, Update, UpdateInput } from "./types.js";

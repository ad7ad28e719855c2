export { type AttentionOutputs, attendWithin, buildAttention, type HeadsQkv } from "./attention.js";
export type { BlockInputs, WeightValues } from "./block.js";
export { buildFfn, type FfnOutputs } from "./ffn.js";

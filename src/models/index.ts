export {
  attendWithin,
  type BlockInputs,
  buildAttention,
  buildFfn,
  type HeadsQkv,
  type WeightValues,
} from "./blocks/index.js";
export { type CanonicalModel, canonicalise } from "./canonical.js";
export { type CardFacts, parentInCard, renderModelCard } from "./card.js";
export { chatTemplateOf } from "./chat.js";
export * from "./config.js";
export { type ContextOptions, extendContext, type RopeExtension } from "./context.js";
export { configFromHub } from "./families/index.js";
export { buildEmbedding, buildFinalNorm, buildHead, type HeadWeights, headWeightName } from "./heads.js";
export {
  type BlockRounded,
  int8Inputs,
  int8MatrixNames,
  int8Places,
  roundByBlocks,
  roundToInt8,
} from "./int8.js";
export {
  type BlockOutputs,
  type BlockTaps,
  blockWeightInputs,
  buildBlock,
  buildModel,
  type ModelInputs,
  type ModelOutputs,
  modelWeightInputs,
} from "./llama.js";
export {
  checkAdapter,
  createLora,
  type LoraAdapter,
  type LoraConfig,
  type LoraOptions,
  loraNames,
  loraWeights,
  mergeLora,
  resolveLora,
} from "./lora.js";
export { type PeftOptions, readPeft, writeGgufAdapter, writePeft } from "./lora-files.js";
export { openModel, openRewardModel } from "./open.js";
export { overlayModel } from "./overlay.js";
export { buildPackedMask, packedPositions } from "./packing.js";
export {
  bodyOf,
  createRewardHead,
  isRewardConfig,
  type RewardHead,
  type RewardModel,
  rewardHeadNames,
  rewardHeadTensors,
} from "./reward-head.js";
export { positionsFrom, type RotaryTables, rotaryFrequencies, rotaryTables } from "./rotary.js";
export {
  ggufExportBytes,
  type HubOptions,
  type SavedModel,
  type SaveOptions,
  writeGguf,
  writeHub,
  writeModelfile,
} from "./save.js";
export { readWeightRows } from "./weights.js";

export {
  countElements,
  readPlanned,
  rowRanges,
  type TensorFile,
  type TensorInfo,
  type TensorPlan,
} from "./checkpoint.js";
export { asBytes, decodeFloats, encodeFloats, type FloatType, findNonFinite, floatBytes } from "./floats.js";
export { dequantise } from "./gguf/dequantise.js";
export { type GgufHeader, type GgufTensor, readGgufHeader } from "./gguf/header.js";
export { quantise } from "./gguf/quantise.js";
export { type GgufFile, openGguf, openGgufFile } from "./gguf/reader.js";
export {
  fileTypeNumbers,
  type GgufArray,
  type GgufEntry,
  type GgufMetadata,
  type GgufScalar,
  type TensorType,
  tensorTypes,
  type WritableType,
} from "./gguf/types.js";
export {
  type GgufEntries,
  type GgufTensorPlan,
  ggufFileBytes,
  resolveTensorType,
  writeGgufFile,
} from "./gguf/writer.js";
export { type HubBlockConfig, type HubConfig, type HubRopeScaling, parseHubConfig } from "./hub-config.js";
export { type ModelfileFacts, renderModelfile } from "./modelfile.js";
export {
  openSafetensors,
  openSafetensorsFile,
  openShardedSafetensors,
  readSafetensorsHeader,
  type SafetensorsHeader,
  type SafetensorsOptions,
  type ShardOptions,
  writeSafetensors,
  writeShardedSafetensors,
} from "./safetensors.js";

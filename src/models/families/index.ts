export { configFromGguf, configToGguf } from "./gguf.js";
export { ggufName, halvesToPairs, pairsToHalves, rotaryHeads } from "./gguf-names.js";
export { configFromHub, configToHub, needsBothAttentionBiases } from "./hub.js";
export { ropeDivisors, shortest } from "./rope.js";

/** What a model is made of, and what it takes: configuration, parameters, file sizes, memory. No weights are read. */
import { modelParameters, openModel } from "espalier";
import { formatBytes } from "espalier/base";
import { blockParameters } from "espalier/models";
import { ggufBytes, modelMemory } from "espalier/plan";

const path = process.argv[2] ?? "models/stories260K";
const { config, close } = await openModel(path);

console.log(`${path}: ${config.modelType}, ${modelParameters(config).toLocaleString("en")} parameters`);
config.blocks.forEach((block, layer) => {
  const attention = block.attention.kind === "gqa" ? `${block.attention.kvHeads} kv heads` : block.attention.kind;
  const ffn = block.ffn.kind === "swiglu" ? `width ${block.ffn.width}` : block.ffn.kind;
  const parameters = blockParameters(config, block).toLocaleString("en");
  console.log(`block ${layer}  ${attention}, ${ffn}, ${parameters} parameters`);
});
for (const type of ["f16", "q8_0"] as const) console.log(`as ${type}  ${formatBytes(ggufBytes(config, type))}`);
const { weights, kvCache } = modelMemory(config, { batch: 1, context: config.maxPositions });
console.log(`memory  ${formatBytes(weights)} weights + ${formatBytes(kvCache)} cache of ${config.maxPositions} tokens`);
await close();

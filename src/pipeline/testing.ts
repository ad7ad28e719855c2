import type { DecodePoint } from "../llamacpp/index.js";
import { type BlockConfig, openModel } from "../models/index.js";
import type { Timer } from "./block-speeds.js";

/** Seconds that a machine of our own making takes: a sum over the blocks, and attention that reads what came before. */
function trueSeconds(blocks: readonly BlockConfig[], vocabSize: number, { depth, batch }: DecodePoint, tokens = 1) {
  const attention = ({ attention: half }: BlockConfig) => {
    if (half.kind === "gqa") return 0.01 + half.kvHeads * (0.001 + 1e-5 * depth * batch);
    return half.kind === "linear" ? 0.004 : 0;
  };
  const ffn = ({ ffn: half }: BlockConfig) => (half.kind === "swiglu" ? 0.0001 * half.width : 0);
  return tokens * blocks.reduce((sum, block) => sum + attention(block) + ffn(block), 0.5 + 1e-5 * vocabSize);
}

/** Reads the files that it is given, and knows how long they take. */
export function fakeLlama() {
  const calls: string[][] = [];
  const timer: Timer = {
    version: async () => ({ package: "3.22.1", llamaCpp: "v0.5.0", gpu: false, devices: [], mathCores: 2 }),
    async timeMany(files, { repeats = 5 }) {
      calls.push(files.map(({ gguf }) => gguf.split("/").at(-1)!));
      return Promise.all(
        files.map(async ({ gguf, prefill, decode }) => {
          const model = await openModel(gguf);
          const { blocks, vocabSize } = model.config;
          await model.close();
          // A drift that touches all alike cancels only in part; here there is none, but rounds differ.
          const rounds = (seconds: number) => Array.from({ length: repeats }, () => seconds);
          return {
            prefill: prefill.map((tokens) => rounds(trueSeconds(blocks, vocabSize, { depth: 0, batch: 1 }, tokens))),
            decode: decode.map((point) => rounds(trueSeconds(blocks, vocabSize, point))),
          };
        }),
      );
    },
  };
  return { timer, calls };
}

/** @module The process that drives node-llama-cpp directly, as its documentation shows, for `bench/engine.ts` to compare with. */
import { getLlama, type LlamaContextSequence, LlamaLogLevel, type Token } from "node-llama-cpp";

export interface DirectOptions {
  gguf: string;
  threads: number;
  contextSize: number;
  sequences: number;
}

export type DirectTask = { prompts: number[][]; tokens: number };

/** Seconds until the first token of all, and from there to the last. */
export interface DirectResult {
  promptSeconds: number;
  decodeSeconds: number;
}

async function start({ gguf, threads, contextSize, sequences }: DirectOptions) {
  const llama = await getLlama({ gpu: false, build: "never", maxThreads: 0, logLevel: LlamaLogLevel.error });
  const model = await llama.loadModel({ modelPath: gguf, gpuLayers: 0 });
  const context = await model.createContext({
    contextSize,
    sequences,
    threads,
    batchSize: 512,
    flashAttention: "auto",
  });
  return Array.from({ length: sequences }, () => context.getSequence());
}

async function run(own: LlamaContextSequence[], { prompts, tokens }: DirectTask): Promise<DirectResult> {
  for (const sequence of own) await sequence.clearHistory();
  const begin = performance.now();
  let first = 0;
  const one = async (prompt: number[], sequence: LlamaContextSequence) => {
    let count = 0;
    for await (const _ of sequence.evaluate(prompt as Token[], { temperature: 0, yieldEogToken: true })) {
      if (count++ === 0) first = performance.now();
      if (count === tokens) break;
    }
  };
  await Promise.all(prompts.map((prompt, i) => one(prompt, own[i]!)));
  return { promptSeconds: (first - begin) / 1000, decodeSeconds: (performance.now() - first) / 1000 };
}

let sequences: LlamaContextSequence[] | undefined;
process.on("message", async (message: DirectOptions | DirectTask) => {
  if ("gguf" in message) {
    sequences = await start(message);
    process.send!("ready");
  } else process.send!(await run(sequences!, message));
});
process.on("disconnect", () => process.exit());

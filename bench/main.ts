/** @module `npm run bench -- NAME [--json]`: each benchmark prints a table, or with --json one JSON value. */

export interface BenchOptions {
  json: boolean;
  /** What follows the name, options aside. */
  args: readonly string[];
}

/** A benchmark prints its own progress to standard error; its result goes to standard output. */
export type Bench = (options: BenchOptions) => Promise<void>;

const benches: Readonly<Record<string, { what: string; load: () => Promise<Bench> }>> = {
  serve: {
    what: "tokens/s through HTTP against node-llama-cpp driven directly; 200 clients for a minute",
    load: async () => (await import("./serve.js")).serve,
  },
  "train-step": {
    what: "forward + backward + clipping + AdamW, against the matrix-product rate and PyTorch",
    load: async () => (await import("./train-step.js")).trainStep,
  },
  "distil-step": {
    what: "seconds and memory of a distillation step, parent included, by its number of sequences",
    load: async () => (await import("./train-step.js")).distilStep,
  },
  sft: {
    what: "real tokens/s of fine-tuning with LoRA, against the matrix-product rate and TRL",
    load: async () => (await import("./tuning.js")).tuneSft,
  },
  dpo: {
    what: "real tokens/s of preference training with LoRA, against the matrix-product rate and TRL",
    load: async () => (await import("./tuning.js")).tuneDpo,
  },
  frozen: {
    what: "LoRA beside frozen matrices in 8 bits: tokens/s, loss, log-probabilities and result against f32",
    load: async () => (await import("./frozen.js")).frozenBench,
  },
  solve: {
    what: "seconds to a proven optimum of 80 layers x 16 variants under three budgets",
    load: async () => (await import("./solve.js")).solve,
  },
  memory: {
    what: "peak memory of a run over a parent of 1.2 billion parameters, 16 and 32 layers",
    load: async () => (await import("./memory.js")).memory,
  },
  "training-memory": {
    what: "peak memory of training steps by method, beside what `espalier plan --training` says",
    load: async () => (await import("./training-memory.js")).trainingMemoryBench,
  },
  "server-model": {
    what: "modelled tokens/s of a server against the published figures of Nemotron-51B and its parent",
    load: async () => (await import("./server-model.js")).serverModel,
  },
  rollout: {
    what: "tokens/s of batched sampling against one sequence, and its share of the matrix rate",
    load: async () => (await import("./rollout.js")).rollout,
  },
  grpo: {
    what: "completion tokens/s of a whole GRPO step, sampling included, against TRL",
    load: async () => (await import("./grpo.js")).grpo,
  },
  engine: {
    what: "tokens/s through the inference engine against node-llama-cpp driven directly",
    load: async () => (await import("./engine.js")).engine,
  },
  search: {
    what: "seconds and summed KL of slicing, closed form and block distillation",
    load: async () => (await import("./search.js")).search,
  },
};

async function main(words: readonly string[]): Promise<number> {
  const [name, ...args] = words.filter((word) => !word.startsWith("--"));
  const bench = name === undefined ? undefined : benches[name];
  if (!bench) {
    const lines = Object.entries(benches).map(([key, { what }]) => `  ${key.padEnd(12)} ${what}`);
    process.stderr.write(`usage: npm run bench -- NAME [--json]\n${lines.join("\n")}\n`);
    return 2;
  }
  await (await bench.load())({ json: words.includes("--json"), args });
  return 0;
}

process.exitCode = await main(process.argv.slice(2));

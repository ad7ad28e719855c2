/**
 * @module What our inference engine keeps of llama.cpp's speed: node-llama-cpp driven directly in a process of its own,
 * and the engine with its process, messages and batches, in turns on the same prompts. Times are those of a client.
 *
 * `npm run bench -- engine [FILE.gguf] [THREADS]`: SmolLM2-135M of the optional test data, two threads.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";
import { createRng } from "../src/base/index.js";
import { sharedPath } from "../src/base/testing.js";
import { type CompletionRequest, createInferenceEngine, type LoadedModel } from "../src/llamacpp/index.js";
import type { DirectOptions, DirectResult, DirectTask } from "./engine-direct.js";
import type { Bench } from "./main.js";
import { type RateRow, rateRow, renderRates, scoringBound } from "./rates.js";

const [rounds, clients, promptTokens, answerTokens, contextSize] = [5, 8, 512, 64, 1024];

export const engine: Bench = async ({ json, args }) => {
  const gguf = args[0] ?? sharedPath("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
  if (gguf === undefined) throw new Error("no model: name a .gguf file");
  const options: DirectOptions = { gguf, threads: Number(args[1] ?? 2), contextSize, sequences: clients };
  const direct = await startDirect(options);
  const inference = createInferenceEngine();
  const { gguf: _, ...load } = options;
  const model = await inference.loadModel(gguf, load);
  const rows = await measure(direct, model, await scoringBound(gguf, promptTokens));
  direct.disconnect();
  await inference.dispose();
  process.stdout.write(
    json ? `${JSON.stringify(rows, null, 2)}\n` : `${renderRates(rows, "direct", "engine").join("\n")}\n`,
  );
};

export async function startDirect(options: DirectOptions): Promise<ChildProcess> {
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
  const path = fileURLToPath(new URL("./engine-direct.ts", import.meta.url));
  const child = fork(path, [], { execArgv: ["--import", tsx], serialization: "advanced" });
  child.send(options);
  await once(child, "message");
  return child;
}

export async function askDirect(child: ChildProcess, task: DirectTask): Promise<DirectResult> {
  child.send(task);
  return (await once(child, "message"))[0] as DirectResult;
}

async function measure(direct: ChildProcess, model: LoadedModel, bound: number): Promise<RateRow[]> {
  const rng = createRng("engine bench");
  const ids = (count: number) => Array.from({ length: count }, () => rng.int(model.info.vocabSize));
  const samples = {
    one: [] as Pair[],
    many: [] as Pair[],
    prefill: [] as Pair[],
    logprobs: [] as Pair[],
    top: [] as Pair[],
  };
  const noEnd = Object.fromEntries(model.info.endIds.map((id) => [id, -100]));
  const requestFor = (prompt: number[], more: Partial<CompletionRequest>) => ({ prompt, maxTokens: 1, ...more });
  for (let round = 0; round <= rounds; round++) {
    const [short, long] = [Array.from({ length: clients }, () => ids(16)), ids(promptTokens)];
    const answer = { maxTokens: answerTokens, sampling: { logitBias: noEnd } };
    const turns = [
      async () => {
        const one = await askDirect(direct, { prompts: [short[0]!], tokens: answerTokens });
        const many = await askDirect(direct, { prompts: short, tokens: answerTokens });
        const prompt = await askDirect(direct, { prompts: [long], tokens: 1 });
        return { one: one.decodeSeconds, many: many.decodeSeconds, prefill: prompt.promptSeconds };
      },
      async () => {
        const one = await time(model, [requestFor(short[0]!, answer)]);
        const many = await time(
          model,
          short.map((prompt) => requestFor(prompt.toReversed(), answer)),
        );
        const prompt = await time(model, [requestFor(long, {})]);
        const logprobs = await time(model, [requestFor(long, { promptLogprobs: 0 })]);
        const top = await time(model, [requestFor(long, { promptLogprobs: 5 })]);
        const prompts = { prefill: prompt.promptSeconds, logprobs: logprobs.promptSeconds, top: top.promptSeconds };
        return { one: one.decodeSeconds, many: many.decodeSeconds, ...prompts };
      },
    ];
    const order = round % 2 === 0 ? [0, 1] : [1, 0];
    const made: Partial<Record<keyof typeof samples, number>>[] = [];
    for (const turn of order) made[turn] = await turns[turn]!();
    process.stderr.write(`round ${round} of ${rounds}\n`);
    // The first round warms up.
    if (round === 0) continue;
    const [theirs, ours] = [made[0]!, made[1]!];
    for (const key of ["one", "many", "prefill"] as const) samples[key].push([theirs[key]!, ours[key]!]);
    for (const key of ["logprobs", "top"] as const) samples[key].push([ours.prefill!, ours[key]!]);
  }
  const step = answerTokens - 1;
  return [
    rateRow("decode, 1 client", samples.one, step, { wanted: 0.97 }),
    rateRow(`decode, ${clients} clients`, samples.many, clients * step, { wanted: 0.95 }),
    rateRow("prefill", samples.prefill, promptTokens, { wanted: 0.97 }),
    rateRow("prompt log-probabilities / prefill of the engine", samples.logprobs, promptTokens, { wanted: 0.9, bound }),
    rateRow("the same with the 5 likeliest", samples.top, promptTokens, { wanted: 0.9, bound }),
  ];
}

/** Seconds of the same work, driven directly and through the engine. */
type Pair = [direct: number, engine: number];

async function time(model: LoadedModel, requests: CompletionRequest[]): Promise<DirectResult> {
  const begin = performance.now();
  let first = 0;
  const one = (request: CompletionRequest) => {
    let seen = false;
    const onText = () => {
      if (!seen) first = performance.now();
      seen = true;
    };
    return model.complete({ ...request, onText });
  };
  await Promise.all(requests.map(one));
  first ||= performance.now();
  return { promptSeconds: (first - begin) / 1000, decodeSeconds: (performance.now() - first) / 1000 };
}

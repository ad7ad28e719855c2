import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { EspalierError } from "../base/index.js";
import { repositoryPath, sharedPath, temporaryDirectory } from "../base/testing.js";
import { createLlamaCpp } from "./index.js";

const smol = sharedPath("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
const llama = createLlamaCpp({ threads: 1 });
afterAll(() => llama.dispose());

interface Golden {
  prompts: {
    text: string;
    ids: number[];
    first_logits_first8: number[];
    last_logits_first8: number[];
    last_top5: [id: number, logit: number][];
  }[];
  chats: { ids: number[]; greedy_ids: number[] }[];
}

test("names its versions", async () => {
  expect(await llama.version()).toMatchObject({ package: "3.22.1", llamaCpp: "v0.5.0", gpu: false });
});

test("an environment whose CI is no boolean does not matter", async () => {
  const before = process.env.CI;
  process.env.CI = "a service's name";
  const other = createLlamaCpp({ threads: 1 });
  try {
    expect(await other.version()).toMatchObject({ package: "3.22.1" });
  } finally {
    await other.dispose();
    if (before === undefined) delete process.env.CI;
    else process.env.CI = before;
  }
});

test("a missing file is named before anything is started", async () => {
  await expect(llama.tokenize("nowhere.gguf", "a")).rejects.toThrow("nowhere.gguf: expected a .gguf file");
});

test("a file of another format is an error that names it, and the next call works", async () => {
  const path = join(temporaryDirectory(), "not.gguf");
  writeFileSync(path, "certainly not a model");
  const failure = await llama.tokenize(path, "a").catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(EspalierError);
  expect(String(failure)).toContain(path);
  expect((await llama.version()).package).toBe("3.22.1");
});

describe.skipIf(!smol)("on SmolLM2-135M-Instruct (optional test data)", () => {
  const gguf = smol!;
  const golden = () =>
    JSON.parse(readFileSync(sharedPath("models/smollm2-135m-instruct/golden.json")!, "utf8")) as Golden;
  const vocabSize = 49152;

  test("tokens equal those of the reference tokenizer", async () => {
    const { prompts } = golden();
    const texts = prompts.map(({ text }) => text);
    expect(await llama.tokenizeMany(gguf, texts)).toEqual(prompts.map(({ ids }) => ids));
  });

  // llama.cpp multiplies Q4_1 and Q8_0 weights with activations in 8 bits; the reference is float64 on the same weights.
  test("logits lie within 0.8 of the float64 reference, and a clear favourite stays one", async () => {
    const { prompts } = golden();
    const rows = await llama.logits(
      gguf,
      prompts.map(({ ids }) => ids),
    );
    for (const [i, { ids, first_logits_first8, last_logits_first8, last_top5 }] of prompts.entries()) {
      const all = rows[i]!;
      expect(all.length).toBe(ids.length * vocabSize);
      const last = all.subarray(-vocabSize);
      first_logits_first8.forEach((value, id) => void expect(Math.abs(all[id]! - value)).toBeLessThan(0.8));
      last_logits_first8.forEach((value, id) => void expect(Math.abs(last[id]! - value)).toBeLessThan(0.8));
      for (const [id, value] of last_top5) expect(Math.abs(last[id]! - value)).toBeLessThan(0.8);
      const [[best, first], [, second]] = last_top5 as [[number, number], [number, number]];
      if (first - second > 1) expect(Math.max(...last)).toBe(last[best]);
    }
  });

  test("asked positions are the same rows as in the whole", async () => {
    const ids = golden().prompts[0]!.ids;
    const [all] = await llama.logits(gguf, [ids]);
    const [tail] = await llama.logits(gguf, [ids], { positions: { last: 2 } });
    const [chosen] = await llama.logits(gguf, [ids], { positions: [1, 3] });
    expect(tail!.length).toBe(2 * vocabSize);
    expect(largestDifference(tail!, all!.subarray(3 * vocabSize))).toBeLessThan(1e-4);
    expect(largestDifference(chosen!.subarray(0, vocabSize), all!.subarray(vocabSize, 2 * vocabSize))).toBeLessThan(
      1e-4,
    );
  });

  test("generates the reference's greedy answer and reports the text as it comes", async () => {
    // The first chat begins with two tokens whose logits differ by 0.06, less than 8-bit activations move them.
    const { ids, greedy_ids } = golden().chats[1]!;
    let streamed = "";
    const { ids: found, text } = await llama.generate(gguf, ids, {
      maxTokens: 8,
      onText: (piece) => (streamed += piece),
    });
    expect([...found, 2]).toEqual(greedy_ids);
    expect(text).toBe("No.");
    expect(streamed).toBe(text);
  });

  test("the same seed gives the same sample", async () => {
    const options = { maxTokens: 6, temperature: 1, seed: 3 };
    const first = await llama.generate(gguf, "Once upon a time", options);
    expect(await llama.generate(gguf, "Once upon a time", options)).toMatchObject({ ids: first.ids });
  });

  test("measures models in turns", async () => {
    const options = { promptTokens: 16, generateTokens: 2, repeats: 2, sampleSeconds: 0 };
    const speeds = await llama.measureMany([gguf, gguf], options);
    expect(speeds).toHaveLength(2);
    for (const { prefill, decode, samples } of speeds) {
      expect(prefill.n).toBe(2);
      expect(decode.mean).toBeCloseTo((samples.decode[0]! + samples.decode[1]!) / 2);
      expect(Math.min(...samples.prefill, ...samples.decode)).toBeGreaterThan(0);
    }
  });

  test("token ids outside the vocabulary are refused", async () => {
    await expect(llama.logits(gguf, [[1, 49152]])).rejects.toThrow("token id 49152 in sequence 0");
  });

  test("an abort ends the child and gives its reason; the next call starts another", async () => {
    const controller = new AbortController();
    const long = llama.measure(gguf, { repeats: 50, signal: controller.signal });
    setTimeout(() => controller.abort(new Error("enough")), 50);
    await expect(long).rejects.toThrow("enough");
    expect(await llama.tokenize(gguf, "The capital")).toEqual([504, 3575]);
  });

  test.skipIf(process.platform !== "linux")("the child's death is an error, not ours", async () => {
    const before = new Set(childPids());
    const own = createLlamaCpp({ threads: 1 });
    await own.version();
    const [pid] = childPids().filter((child) => !before.has(child));
    const long = own.measure(gguf, { repeats: 50 });
    setTimeout(() => process.kill(pid!, "SIGABRT"), 50);
    await expect(long).rejects.toThrow("the end of its process (SIGABRT)");
    expect(await own.tokenize(gguf, "The capital")).toEqual([504, 3575]);
    await own.dispose();
  });
});

test.skipIf(process.platform !== "linux")("the child ends with its parent, however that ends", async () => {
  const module = new URL("./index.ts", import.meta.url).href;
  const program = `import { createLlamaCpp } from ${JSON.stringify(module)};
    await createLlamaCpp().version();
    console.log("ready");
    setInterval(() => {}, 1000);`;
  const parent = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", program], {
    cwd: repositoryPath(""),
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(parent.stdout, "data");
  const children = childPids(parent.pid!).filter((pid) => commandOf(pid).includes("llamacpp/worker"));
  expect(children).toHaveLength(1);
  parent.kill("SIGKILL");
  await once(parent, "close");
  await expect.poll(() => commandOf(children[0]!), { timeout: 10_000 }).toBe("");
});

/** Empty once the process is gone, or waits only to be collected. */
function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}

function childPids(pid = process.pid): number[] {
  const tasks = readdirSync(`/proc/${pid}/task`);
  const lists = tasks.map((task) => readFileSync(`/proc/${pid}/task/${task}/children`, "utf8"));
  return lists.flatMap((list) => list.split(" ").filter(Boolean).map(Number));
}

function largestDifference(a: Float32Array, b: Float32Array): number {
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i]! - b[i]!));
  return largest;
}

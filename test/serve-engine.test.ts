// The server over the real engine: exact scores of prompts, a process that dies, a file that is none.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../src/base/testing.js";
import { createEngine, type Engine } from "../src/engine/index.js";
import { createInferenceEngine } from "../src/llamacpp/index.js";
import { openModel, writeGguf } from "../src/models/index.js";
import { createRuntime } from "../src/runtime/index.js";
import { type ModelServer, startServer } from "../src/serve/index.js";
import { loadTokenizer } from "../src/tokenizer/index.js";

const directory = temporaryDirectory();
const engine = createInferenceEngine();
let server: ModelServer;

beforeAll(async () => {
  const gguf = join(directory, "stories.gguf");
  const model = await openModel(repositoryPath("models/stories260K"));
  await writeGguf(model, gguf);
  await model.close();
  const broken = join(directory, "broken.gguf");
  writeFileSync(broken, readFileSync(gguf).subarray(0, 300_000));
  server = await startServer({
    engine,
    models: [
      { name: "stories", gguf },
      { name: "broken", gguf: broken },
    ],
    load: { threads: 1, contextSize: 256, cache: "f32" },
    port: 0,
  });
});
afterAll(async () => {
  await server.stop();
  await engine.dispose();
});

const post = async (path: string, body: object) => {
  const response = await fetch(server.url + path, { method: "POST", body: JSON.stringify(body) });
  const text = await response.text();
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape.
  return { status: response.status, text, json: (text.startsWith("{") ? JSON.parse(text) : undefined) as any };
};

test("scores of a prompt are our own engine's within 1e-3", async () => {
  const model = await openModel(repositoryPath("models/stories260K"));
  const runtime = await createRuntime({ threads: 1 });
  const text = "Once upon a time, there was a little girl who liked to play outside in the park with her dog.";
  const ids = loadTokenizer(model.sidecars.tokenizer, "stories").encode(text);
  const expected = await logProbabilities(createEngine(runtime, model), ids);
  const { json } = await post("/v1/completions", {
    model: "stories",
    prompt: ids,
    max_tokens: 0,
    echo: true,
    logprobs: 0,
  });
  const found = json.choices[0].logprobs.token_logprobs as (number | null)[];
  expect(found).toHaveLength(ids.length);
  expect(found[0]).toBeNull();
  for (const [i, value] of expected.entries()) expect(Math.abs(found[i + 1]! - value)).toBeLessThan(1e-3);
  await model.close();
  await runtime.dispose();
});

test.skipIf(process.platform !== "linux")(
  "when the model's process dies, its requests get errors and the next one an answer",
  async () => {
    const story = { model: "stories", prompt: "Once upon a time", max_tokens: 200, logit_bias: { 1: -100, 2: -100 } };
    await post("/v1/completions", { ...story, max_tokens: 1 });
    // Nothing can be answered from here on, however fast the machine is.
    const pids = workers();
    for (const pid of pids) process.kill(pid, "SIGSTOP");
    const asked = [0, 1, 2].map(() => post("/v1/completions", story));
    const streamed = post("/v1/completions", { ...story, stream: true });
    await new Promise((resolve) => setTimeout(resolve, 500));
    for (const signal of ["SIGABRT", "SIGCONT"]) for (const pid of pids) process.kill(pid, signal);
    for (const { status, json } of await Promise.all(asked)) {
      expect(status).toBe(500);
      expect(json.error).toMatchObject({ type: "server_error", message: expect.stringContaining("stories.gguf") });
      expect(json.error.message).toContain("SIGABRT");
    }
    expect((await streamed).text).toContain("SIGABRT");
    const after = await post("/v1/completions", { ...story, max_tokens: 2 });
    expect([after.status, after.json.usage.completion_tokens]).toEqual([200, 2]);
  },
);

test("a file that llama.cpp cannot load is named, and the others go on", async () => {
  const messages = [{ role: "user", content: "Hi" }];
  const { status, json } = await post("/v1/messages", { model: "broken", messages, max_tokens: 2 });
  expect([status, json.error.type]).toEqual([500, "api_error"]);
  expect(json.error.message).toMatch(/^model "broken": .*broken.gguf/s);
  expect((await post("/v1/chat/completions", { model: "stories", messages, max_tokens: 2 })).status).toBe(200);
});

/** Of every token but the first, by our engine. */
async function logProbabilities(own: Engine, ids: readonly number[]): Promise<number[]> {
  const { data } = await own.logits(await own.forward([[...ids]]));
  const { vocabSize } = own.config;
  return ids.slice(1).map((id, i) => {
    const row = Array.from(data.subarray(i * vocabSize, (i + 1) * vocabSize) as Float32Array);
    const most = Math.max(...row);
    const sum = row.reduce((total, value) => total + Math.exp(value - most), 0);
    return row[id]! - most - Math.log(sum);
  });
}

/** Processes of loaded models. */
function workers(): number[] {
  const tasks = readdirSync(`/proc/${process.pid}/task`);
  const children = tasks.flatMap((task) =>
    readFileSync(`/proc/${process.pid}/task/${task}/children`, "utf8").split(" ").filter(Boolean).map(Number),
  );
  return children.filter((pid) => readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("inference/worker"));
}

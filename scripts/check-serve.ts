/**
 * The long check of the server: malformed requests to every endpoint, over the real engine and a tiny model. Each must get an
 * answer or its dialect's error, never a status of ours being wrong, and the server must live.
 *   npm run check:serve [-- REQUESTS [SEED]]
 */
import { join } from "node:path";
import { repositoryPath, temporaryDirectory } from "../src/base/testing.js";
import { createInferenceEngine } from "../src/llamacpp/index.js";
import { openModel, writeGguf } from "../src/models/index.js";
import { startServer } from "../src/serve/index.js";
import { fuzzServer } from "../test/support/fuzz-serve.js";

const [requests = "5000", seed = "1"] = process.argv.slice(2);

const gguf = join(temporaryDirectory(), "stories.gguf");
const model = await openModel(repositoryPath("models/stories260K"));
await writeGguf(model, gguf);
await model.close();

const engine = createInferenceEngine();
const server = await startServer({
  engine,
  models: [{ name: "stories", gguf }],
  load: { threads: 1, contextSize: 512 },
  port: 0,
  maxTokens: 24,
  receiveTimeoutMs: 3000,
});
const began = performance.now();
const { statuses, wrong } = await fuzzServer({ url: server.url, model: "stories" }, Number(requests), Number(seed));
await server.stop(1000);
await engine.dispose();

for (const line of wrong) console.log(line);
const seconds = ((performance.now() - began) / 1000).toFixed(0);
console.log(`${requests} requests in ${seconds} s, by status: ${JSON.stringify(statuses)}; ${wrong.length} wrong`);
process.exitCode = wrong.length === 0 ? 0 : 1;

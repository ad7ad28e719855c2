/** Continues a prompt, token by token as they come: greedy, then sampled. The same seed gives the same text. */
import { createEngine, createRuntime, generate, loadTokenizer, openModel } from "espalier";
import { createStreamDecoder } from "espalier/tokenizer";

const [path = "models/stories260K", prompt = "Once upon a time"] = process.argv.slice(2);
const runtime = await createRuntime();
const model = await openModel(path);
const tokenizer = loadTokenizer(model.sidecars.tokenizer, path);
const engine = createEngine(runtime, model);

for (const temperature of [0, 0.8]) {
  const stream = createStreamDecoder(tokenizer);
  process.stdout.write(`\ntemperature ${temperature}: ${prompt}`);
  const { tokensPerSecond, finish } = await generate(engine, tokenizer.encode(prompt), {
    maxTokens: 60,
    temperature,
    topP: 0.95,
    seed: 1,
    onToken: (id) => process.stdout.write(stream.push(id)),
  });
  console.log(`${stream.end()}\n[${finish}, ${tokensPerSecond.toFixed(0)} tokens/s]`);
}

await model.close();
await runtime.dispose();

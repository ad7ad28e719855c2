import { spawn } from "node:child_process";
import { once } from "node:events";
import { expect, test } from "vitest";
import { repositoryPath } from "../../base/testing.js";
import { runCli } from "../testing.js";
import { createCommand } from "./serve.js";

test("a child of a reshape is served from its directory, and SIGTERM ends it", async () => {
  const words = ["serve", `story=${repositoryPath("models/stories260K")}`, "--port", "0", "--threads", "1", "--json"];
  const server = spawn(process.execPath, ["--import", "tsx", repositoryPath("src/cli/main.ts"), ...words], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const [line] = await once(server.stdout, "data");
  const { url, models } = JSON.parse(String(line)) as { url: string; models: { name: string; gguf: string }[] };
  expect(models).toEqual([{ name: "story", gguf: expect.stringMatching(/stories260K\.gguf$/) }]);
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    body: JSON.stringify({ model: "story", prompt: "Once upon a", temperature: 0, max_tokens: 4 }),
  });
  const { choices } = (await response.json()) as { choices: { text: string }[] };
  expect(choices[0]!.text).toMatch(/^ time/);
  server.kill("SIGTERM");
  expect(await once(server, "exit")).toEqual([0, null]);
});

test.each([
  [["nowhere.gguf"], "nowhere.gguf: expected a .gguf file, a model's directory"],
  [[repositoryPath("models/stories260K"), "--host", "0.0.0.0"], "--host 0.0.0.0: expected an API key"],
  [["a=package.json", "a=package.json"], 'found a second model "a"'],
  [["a=package.json", "--gpu", "abacus"], "--gpu: expected cuda, vulkan or metal"],
])("%j is refused", async (words, message) => {
  const { error, exitCode } = await runCli(createCommand(), [...words, "--port", "0"]);
  expect(error).toContain(message);
  expect(exitCode).toBe(2);
});

test("a port that is taken is said", async () => {
  const { createServer } = await import("node:net");
  const taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const { port } = taken.address() as { port: number };
  const { error, exitCode } = await runCli(createCommand(), ["a=package.json", "--port", String(port)]);
  expect(error).toContain(`127.0.0.1:${port}: found a port that is taken; give another with --port`);
  expect(exitCode).toBe(2);
  taken.close();
});

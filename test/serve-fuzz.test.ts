import { join } from "node:path";
import { expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../src/base/testing.js";
import { openModel, writeGguf } from "../src/models/index.js";
import { startTestServer } from "../src/serve/testing.js";
import { fuzzServer } from "./support/fuzz-serve.js";

// `npm run check:serve` sends 5,000 to the real engine.
test("300 malformed requests get their dialect's errors, and the server lives", async () => {
  const gguf = join(temporaryDirectory(), "fake.gguf");
  const model = await openModel(repositoryPath("models/stories260K"));
  await writeGguf(model, gguf);
  await model.close();
  const server = await startTestServer(
    {},
    { receiveTimeoutMs: 2000, models: [{ name: "fake", gguf }], memoryBytes: 1e8 },
  );
  const { wrong, statuses } = await fuzzServer({ url: server.url, model: "fake" }, 300, 1);
  expect(wrong).toEqual([]);
  expect(statuses["400"]).toBeGreaterThan(100);
  expect(statuses["200"]).toBeGreaterThan(10);
  await server.stop(100);
});

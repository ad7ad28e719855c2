import { cpSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { repositoryPath, temporaryDirectory } from "../../base/testing.js";
import { type FakeHub, startFakeHub } from "../../hub/testing.js";
import { openModel, writeGguf } from "../../models/index.js";
import { runCli } from "../testing.js";
import { createCommand as createList } from "./list.js";
import { createCommand as createPlan } from "./plan.js";
import { createCommand as createPull } from "./pull.js";
import { createCommand as createRemove } from "./rm.js";
import { createCommand as createShow } from "./show.js";

const stories = repositoryPath("models/stories260K");
const files = Object.fromEntries(
  readdirSync(stories, { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => [name, new Uint8Array(readFileSync(join(stories, name)))]),
);
let hub: FakeHub;
let cache: string;
beforeAll(async () => {
  hub = await startFakeHub({ "karpathy/stories260K": { files, commit: "c0ffee" } });
  cache = temporaryDirectory();
  vi.stubEnv("HF_ENDPOINT", hub.url);
  vi.stubEnv("HF_HUB_CACHE", cache);
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await hub.close();
});
async function run(command: Command, ...words: string[]) {
  return runCli(command, words);
}

describe("pull, list and rm", () => {
  test("of a model on a hub, from an empty cache to an empty cache", async () => {
    expect((await run(createList())).out).toContain("no models in");
    const pulled = await run(createPull(), "hf:karpathy/stories260K");
    const snapshot = join(cache, "models--karpathy--stories260K", "snapshots", "c0ffee");
    expect(pulled.out).toContain(snapshot);
    expect(pulled.error).toMatch(/pull karpathy\/stories260K .* of /);
    expect(readFileSync(join(snapshot, "model.safetensors")).equals(files["model.safetensors"]!)).toBe(true);
    expect((await run(createPull(), "hf:karpathy/stories260K")).out).toContain("nothing to fetch");
    const { models } = JSON.parse((await run(createList(), "--json")).out);
    expect(models).toMatchObject([
      { name: "hf:karpathy/stories260K", family: "llama", parameters: 260_032, type: "F32", path: snapshot },
    ]);
    expect((await run(createList())).out).toMatch(/hf:karpathy\/stories260K +llama +260\.0K +F32/);
    expect(JSON.parse((await run(createShow(), "hf:karpathy/stories260K", "--json")).out)).toMatchObject({
      path: snapshot,
      parameters: 260_032,
    });
    expect(JSON.parse((await run(createPlan(), "hf:karpathy/stories260K", "--json")).out).parameters).toBe(260_032);
    expect((await run(createRemove(), "hf:karpathy/stories260K")).out).toMatch(/MiB freed/);
    expect((await run(createList())).out).toContain("no models in");
  });

  test("folders are listed with what their models were made from", async () => {
    const folder = temporaryDirectory();
    cpSync(repositoryPath("models/stories260K"), join(folder, "child"), { recursive: true });
    writeFileSync(join(folder, "child", "README.md"), '---\nbase_model: "owner/parent"\n---\n');
    const child = await openModel(join(folder, "child"));
    await writeGguf(child, join(folder, "child.gguf"), { type: "f16" });
    await child.close();
    const { models } = JSON.parse((await run(createList(), folder, "--json")).out);
    expect(models).toMatchObject([
      { name: join(folder, "child.gguf"), parameters: 260_032, type: "F16", parent: "owner/parent" },
      { name: join(folder, "child"), parameters: 260_032, type: "F32", parent: "owner/parent" },
    ]);
    expect((await run(createList(), folder)).out).toMatch(/made from\n.*owner\/parent/);
    expect((await run(createList(), join(folder, "nowhere"))).error).toContain("nowhere");
  });

  test("of a file at an address", async () => {
    const out = join(temporaryDirectory(), "config.json");
    const { out: said } = await run(
      createPull(),
      `${hub.url}/karpathy/stories260K/resolve/main/config.json`,
      "--out",
      out,
    );
    expect(readFileSync(out).equals(files["config.json"]!)).toBe(true);
    expect(said).toContain("not checked");
    const again = await run(createPull(), `${hub.url}/karpathy/stories260K/resolve/main/config.json`, "--out", out);
    expect([again.exitCode, again.error]).toEqual([2, expect.stringContaining("a path that does not exist yet")]);
  });

  test.each([
    [createShow, ["hf:karpathy/stories260K"], "espalier pull hf:karpathy/stories260K", 2],
    [createPull, ["hf:no/such"], "HTTP 404", 1],
    [createPull, ["nonsense"], "for example hf:", 2],
    [createPull, ["hf:karpathy/stories260K:Q4_K_M"], "no GGUF at all", 2],
    [createRemove, ["hf:karpathy/other"], "none of that name", 2],
  ] as const)("%o %j is refused", async (create, words, message, code) => {
    const { error, exitCode } = await run(create(), ...words);
    expect(error).toContain(message);
    expect(exitCode).toBe(code);
  });
});

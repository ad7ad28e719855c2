import { spawnSync } from "node:child_process";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../../base/testing.js";

function doctor(...args: string[]) {
  const main = repositoryPath("dist/cli/main.js");
  return spawnSync(process.execPath, [main, "doctor", ...args], { encoding: "utf8", cwd: temporaryDirectory() });
}

test("--json names the libraries with their versions, the devices, memory and disk", () => {
  const { status, stdout } = doctor("--json");
  const found = JSON.parse(stdout);
  expect(found.problems).toEqual([]);
  expect(status).toBe(0);
  expect(found.libraries).toEqual([
    { name: "onnxruntime-node", version: "1.30.0" },
    { name: "node-llama-cpp", version: "3.22.1" },
  ]);
  expect(found.llamaCpp.llamaCpp).toBe("v0.5.0");
  expect(found.node).toEqual({ version: process.versions.node, supported: true });
  expect(found.devices).toContainEqual({ device: "cpu", present: true });
  expect(found.cpu.usable).toBe(availableParallelism());
  expect(found.memory.totalBytes).toBeGreaterThan(found.memory.freeBytes);
  expect(found.disk.map(({ path }: { path: string }) => path)).toEqual(["out", ".espalier"]);
});

test("measures the directories that it is told", () => {
  const store = join(repositoryPath("models"), "stories260K");
  const [, place] = JSON.parse(doctor("--json", "--store", store).stdout).disk;
  expect(place.path).toBe(store);
  expect(place.usedBytes).toBeGreaterThan(1_000_000);
});

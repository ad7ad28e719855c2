import { readdir, stat } from "node:fs/promises";
import { arch, availableParallelism, cpus, freemem, platform, release, totalmem } from "node:os";
import { join } from "node:path";
import { Command } from "commander";
import { formatBytes, freeDiskBytes, messageOf } from "../../base/index.js";
import type { LlamaCppVersion } from "../../llamacpp/index.js";
import type { DeviceStatus } from "../../runtime/index.js";
import { runCommand } from "../output.js";

export function createCommand(): Command {
  return new Command("doctor")
    .description(
      "Says what this machine has: devices, libraries, memory, disk. Exit code 1 when something needed fails.",
    )
    .option("--store <dir>", "the store", ".espalier")
    .option("--out <dir>", "where runs write", "out")
    .addHelpText("after", "\nExample:\n  $ espalier doctor --json")
    .action((options: DoctorOptions, command: Command) =>
      runCommand(command, async (io) => {
        const diagnosis = await examine(options, io.signal);
        io.result(diagnosis, () => render(diagnosis));
        if (diagnosis.problems.length > 0) process.exitCode = 1;
      }),
    );
}

interface DoctorOptions {
  store: string;
  out: string;
}

interface Library {
  name: string;
  version?: string;
  /** Why it cannot be used. */
  error?: string;
}

interface Place {
  path: string;
  /** What lies there now. */
  usedBytes: number;
  /** What its file system still takes. */
  freeBytes: number;
}

interface Diagnosis {
  node: { version: string; supported: boolean };
  system: { platform: string; release: string; arch: string };
  cpu: { model: string; cores: number; usable: number };
  memory: { totalBytes: number; freeBytes: number };
  libraries: Library[];
  devices: DeviceStatus[];
  llamaCpp?: LlamaCppVersion;
  disk: Place[];
  /** What keeps Espalier from working here, one sentence each. */
  problems: string[];
}

async function examine({ store, out }: DoctorOptions, signal: AbortSignal): Promise<Diagnosis> {
  const node = { version: process.versions.node, supported: isSupported(process.versions.node) };
  const onnx = await examineOnnxRuntime();
  const llama = await examineLlamaCpp(signal);
  const libraries = [onnx.library, llama.library];
  const problems = libraries.filter(({ error }) => error).map(({ name, error }) => `${name} does not work: ${error}`);
  if (!node.supported) problems.unshift(`Node ${node.version} is too old: 20.19 is the oldest that is tested`);
  return {
    node,
    system: { platform: platform(), release: release(), arch: arch() },
    cpu: { model: cpus()[0]?.model.trim() ?? "unknown", cores: onnx.cores, usable: availableParallelism() },
    memory: { totalBytes: totalmem(), freeBytes: freemem() },
    libraries,
    devices: onnx.devices,
    ...(llama.version ? { llamaCpp: llama.version } : {}),
    disk: [await examinePlace(out), await examinePlace(store)],
    problems,
  };
}

function isSupported(version: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major > 20 || (major === 20 && minor >= 19);
}

async function examineOnnxRuntime(): Promise<{ library: Library; devices: DeviceStatus[]; cores: number }> {
  const name = "onnxruntime-node";
  try {
    const { defaultThreads, libraryVersion, listDevices } = await import("../../runtime/index.js");
    const devices = await listDevices();
    return { library: { name, version: await libraryVersion() }, devices, cores: defaultThreads() };
  } catch (error) {
    return { library: { name, error: messageOf(error) }, devices: [], cores: availableParallelism() };
  }
}

async function examineLlamaCpp(signal: AbortSignal): Promise<{ library: Library; version?: LlamaCppVersion }> {
  const name = "node-llama-cpp";
  const { createLlamaCpp } = await import("../../llamacpp/index.js");
  const llama = createLlamaCpp();
  try {
    const version = await llama.version({ signal });
    return { library: { name, version: version.package }, version };
  } catch (error) {
    signal.throwIfAborted();
    return { library: { name, error: messageOf(error) } };
  } finally {
    await llama.dispose();
  }
}

async function examinePlace(path: string): Promise<Place> {
  return { path, usedBytes: await usedBytes(path), freeBytes: await freeDiskBytes(path) };
}

async function usedBytes(directory: string): Promise<number> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => []);
  const files = entries.filter((entry) => entry.isFile());
  const sizes = await Promise.all(
    files.map((file) =>
      stat(join(file.parentPath, file.name)).then(
        ({ size }) => size,
        () => 0,
      ),
    ),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}

function render(diagnosis: Diagnosis): string {
  const { node, system, cpu, memory, libraries, devices, llamaCpp, disk, problems } = diagnosis;
  const lines: [string, string][] = [
    ["Node", `${node.version}${node.supported ? "" : " (too old)"} on ${system.platform} ${system.arch}`],
    ["cores", `${cpu.cores} (${cpu.model})`],
    ["memory", `${formatBytes(memory.freeBytes)} free of ${formatBytes(memory.totalBytes)}`],
    ...libraries.map(({ name, version, error }): [string, string] => [name, version ?? `does not work: ${error}`]),
    ...(llamaCpp ? [["llama.cpp", `${llamaCpp.llamaCpp}, ${llamaCpp.gpu || "CPU"}`] satisfies [string, string]] : []),
    ...devices.map(({ device, present, reason }): [string, string] => [
      `--device ${device}`,
      present ? "present" : `missing: ${lastSentence(reason ?? "")}`,
    ]),
    ...disk.map(({ path, usedBytes, freeBytes }): [string, string] => [
      path,
      `${formatBytes(usedBytes)} used, ${formatBytes(freeBytes)} free`,
    ]),
  ];
  const width = Math.max(...lines.map(([label]) => label.length));
  const table = lines.map(([label, text]) => `${label.padEnd(width)}  ${text}`);
  return [...table, "", ...(problems.length > 0 ? problems : ["everything that is needed works"])].join("\n");
}

/** ONNX Runtime's reasons begin with where in its sources they arose; the whole is in --json. */
function lastSentence(reason: string): string {
  return reason.split(". ").at(-1)!;
}

import { Command } from "commander";
import { formatBytes, formatCount } from "../../base/index.js";
import type { CachedSnapshot } from "../../hub/index.js";
import { type CommandIo, runCommand } from "../output.js";

export function createCommand(): Command {
  return new Command("list")
    .description("Lists the models of the Hugging Face cache: family, parameters, type and size.")
    .addHelpText("after", "\nExample:\n  $ espalier list --json")
    .action((_options: unknown, command: Command) => runCommand(command, list));
}

async function list(io: CommandIo): Promise<void> {
  const { hubCacheDirectory, listCache } = await import("../../hub/index.js");
  const cache = hubCacheDirectory();
  const snapshots = await listCache(cache);
  const models = (await Promise.all(snapshots.map(modelsOf))).flat();
  io.result({ cache, models }, () => {
    if (models.length === 0) return `no models in ${cache}; \`espalier pull\` fetches one`;
    const rows = models.map(({ name, family, parameters, type, bytes }) => [
      name,
      family ?? "-",
      parameters === null ? "-" : formatCount(parameters),
      type ?? "-",
      formatBytes(bytes),
    ]);
    const table = [["name", "family", "parameters", "type", "size"], ...rows];
    const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
    return table
      .map((row) =>
        row
          .map((cell, i) => cell.padEnd(widths[i]!))
          .join("  ")
          .trimEnd(),
      )
      .join("\n");
  });
}

/** A directory of safetensors is one model, each GGUF another; what cannot be read is listed without its facts. */
async function modelsOf({ repository, commit, path, files, bytes }: CachedSnapshot) {
  const { join } = await import("node:path");
  const ggufs = files.filter((file) => file.path.endsWith(".gguf"));
  const whole = files.some((file) => file.path.endsWith(".safetensors"))
    ? [{ name: `hf:${repository}`, path, bytes: bytes - ggufs.reduce((sum, { size }) => sum + size, 0) }]
    : [];
  const single = ggufs.map((file) => ({
    name: `hf:${repository}/${file.path}`,
    path: join(path, file.path),
    bytes: file.size,
  }));
  return Promise.all(
    [...whole, ...single].map(async (model) => ({ ...model, repository, commit, ...(await factsOf(model.path)) })),
  );
}

interface Facts {
  family: string | null;
  parameters: number | null;
  /** The type that most of the weights have. */
  type: string | null;
}

async function factsOf(path: string): Promise<Facts> {
  const { modelParameters, openModel } = await import("../../models/index.js");
  try {
    const model = await openModel(path);
    const { modelType, family } = model.config;
    const facts = { family: family === "deci" ? "deci" : modelType, parameters: modelParameters(model.config) };
    await model.close();
    return { ...facts, type: await mostBytes(path) };
  } catch {
    return { family: null, parameters: null, type: null };
  }
}

async function mostBytes(path: string): Promise<string | null> {
  const { openGgufFile, openSafetensorsFile, openShardedSafetensors } = await import("../../formats/index.js");
  const { fileExists } = await import("../../base/index.js");
  const { join } = await import("node:path");
  const index = join(path, "model.safetensors.index.json");
  const sharded = await fileExists(index);
  const file = path.endsWith(".gguf")
    ? await openGgufFile(path)
    : await (sharded ? openShardedSafetensors(index) : openSafetensorsFile(join(path, "model.safetensors")));
  const bytes = new Map<string, number>();
  for (const name of file.names) {
    const { type, byteLength } = file.info(name)!;
    bytes.set(type, (bytes.get(type) ?? 0) + byteLength);
  }
  await file.close();
  return [...bytes].sort((a, b) => b[1] - a[1])[0]?.[0] ?? null;
}

import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { Command } from "commander";
import { fileError, fileExists, formatBytes, formatCount } from "../../base/index.js";
import { type CommandIo, runCommand } from "../output.js";

export function createCommand(): Command {
  return new Command("list")
    .description("Lists models with family, parameters, type, size, and what each was made from.")
    .argument("[folders...]", "folders whose models are listed (default: the Hugging Face cache)")
    .addHelpText("after", "\nExamples:\n  $ espalier list --json\n  $ espalier list out/")
    .action((folders: string[], _options: unknown, command: Command) =>
      runCommand(command, (io) => (folders.length > 0 ? listFolders(io, folders) : listHubCache(io))),
    );
}

interface Listed extends Facts {
  name: string;
  path: string;
  bytes: number;
}

async function listHubCache(io: CommandIo): Promise<void> {
  const { hubCacheDirectory, listCache } = await import("../../hub/index.js");
  const cache = hubCacheDirectory();
  const snapshots = await listCache(cache);
  const models = (
    await Promise.all(
      snapshots.map(async ({ repository, commit, path, files }) => {
        const found = await modelsIn(path, files);
        return found.map((model) => {
          const name = model.name === "" ? `hf:${repository}` : `hf:${repository}/${model.name}`;
          return { ...model, name, repository, commit };
        });
      }),
    )
  ).flat();
  io.result({ cache, models }, () =>
    models.length === 0 ? `no models in ${cache}; \`espalier pull\` fetches one` : renderModels(models),
  );
}

async function listFolders(io: CommandIo, folders: readonly string[]): Promise<void> {
  const models: Listed[] = [];
  for (const folder of folders) {
    for (const [directory, files] of await filesByDirectory(folder)) {
      const found = await modelsIn(directory, files);
      models.push(...found.map((model) => ({ ...model, name: join(directory, model.name) })));
    }
  }
  io.result({ folders, models }, () =>
    models.length === 0 ? `no models in ${folders.join(", ")}` : renderModels(models),
  );
}

async function filesByDirectory(folder: string): Promise<Map<string, FileSize[]>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch((cause) => {
    throw fileError(folder, cause);
  });
  const directories = new Map<string, FileSize[]>();
  for (const entry of entries) {
    const info = await stat(join(entry.parentPath, entry.name)).catch(() => undefined);
    if (!info?.isFile()) continue;
    const { size } = info;
    directories.set(entry.parentPath, [...(directories.get(entry.parentPath) ?? []), { path: entry.name, size }]);
  }
  return new Map([...directories].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function renderModels(models: readonly Listed[]): string {
  const rows = models.map(({ name, family, parameters, type, bytes, parent }) => [
    name,
    family ?? "-",
    parameters === null ? "-" : formatCount(parameters),
    type ?? "-",
    formatBytes(bytes),
    parent ?? "-",
  ]);
  const lines = [["name", "family", "parameters", "type", "size", "made from"], ...rows];
  const widths = lines[0]!.map((_, column) => Math.max(...lines.map((row) => row[column]!.length)));
  const line = (row: readonly string[]) => row.map((cell, i) => cell.padEnd(widths[i]!)).join("  ");
  return lines.map((row) => line(row).trimEnd()).join("\n");
}

interface FileSize {
  path: string;
  size: number;
}

/**
 * A directory of safetensors is one model, without a name of its own; each GGUF is another. What cannot be read is listed
 * without its facts.
 */
async function modelsIn(directory: string, files: readonly FileSize[]): Promise<Listed[]> {
  const sum = (some: readonly FileSize[]) => some.reduce((bytes, { size }) => bytes + size, 0);
  const ggufs = files.filter((file) => file.path.endsWith(".gguf"));
  const whole = files.some((file) => file.path.endsWith(".safetensors"))
    ? [{ name: "", path: directory, bytes: sum(files) - sum(ggufs) }]
    : [];
  const single = ggufs.map(({ path, size }) => ({ name: path, path: join(directory, path), bytes: size }));
  const parent = await parentOf(join(directory, "README.md"));
  return Promise.all(
    [...whole, ...single].map(async (model) => {
      const facts = await factsOf(model.path);
      return { ...model, ...facts, parent: facts.parent ?? parent };
    }),
  );
}

/** As the model card says it; a GGUF's own header goes before. */
async function parentOf(card: string): Promise<string | null> {
  const { parentInCard } = await import("../../models/index.js");
  const text = await readFile(card, "utf8").catch(() => "");
  return parentInCard(text) ?? null;
}

interface Facts {
  family: string | null;
  parameters: number | null;
  /** The type that most of the weights have. */
  type: string | null;
  parent: string | null;
}

async function factsOf(path: string): Promise<Facts> {
  const { modelParameters, openModel } = await import("../../models/index.js");
  try {
    const model = await openModel(path);
    const { modelType, family } = model.config;
    const { parent = null } = model.sidecars;
    const facts = {
      parent,
      family: family === "deci" ? "deci" : modelType,
      parameters: modelParameters(model.config),
    };
    await model.close();
    return { ...facts, type: await mostBytes(path) };
  } catch {
    return { family: null, parameters: null, type: null, parent: null };
  }
}

async function mostBytes(path: string): Promise<string | null> {
  const { openGgufFile, openSafetensorsFile, openShardedSafetensors } = await import("../../formats/index.js");
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

import { Command } from "commander";
import { checkFree, EspalierError, formatBytes } from "../../base/index.js";
import { positiveInteger } from "../options.js";
import { type CommandIo, runCommand } from "../output.js";

export function createCommand(): Command {
  return new Command("pull")
    .description(
      "Fetches a model into the Hugging Face cache, which Python's tools share. What is there already is not fetched again.",
    )
    .argument("<model>", "hf:owner/name, with :quant, @revision or /file after it, or an address")
    .option("--out <file>", "where a file from an address that is not a hub's goes (default: its name, here)")
    .option("--parallel <n>", "files at once", positiveInteger, 4)
    .addHelpText(
      "after",
      `
Examples:
  $ espalier pull hf:HuggingFaceTB/SmolLM2-135M-Instruct
  $ espalier pull hf:bartowski/SmolLM2-135M-Instruct-GGUF:Q4_K_M
  $ espalier pull https://example.org/model.gguf --out model.gguf

HF_TOKEN is sent for private and gated models, HF_ENDPOINT names another hub, HF_HUB_CACHE another cache.`,
    )
    .action((model: string, options: PullOptions, command: Command) =>
      runCommand(command, (io) => pullModel(io, model, options)),
    );
}

interface PullOptions {
  out?: string;
  parallel: number;
}

async function pullModel(io: CommandIo, model: string, { out, parallel }: PullOptions): Promise<void> {
  const { parseModelName, pull } = await import("../../hub/index.js");
  const name = parseModelName(model);
  if (name.kind === "path") throw new EspalierError({ where: model, found: "a path: it is here already", exitCode: 2 });
  if (name.kind === "url") return pullFile(io, name.url, out);
  const { onEvent, signal } = io;
  const pulled = await pull(name, { parallel, onEvent, signal });
  io.result(pulled, () => {
    const fetched = pulled.fetchedBytes > 0 ? `${formatBytes(pulled.fetchedBytes)} fetched` : "nothing to fetch";
    return `${pulled.path}\n${pulled.files.length} files, ${formatBytes(pulled.bytes)}, ${fetched}`;
  });
}

async function pullFile(
  io: CommandIo,
  url: URL,
  out = decodeURIComponent(url.pathname.split("/").at(-1)!),
): Promise<void> {
  if (out === "")
    throw new EspalierError({ where: url.href, found: "no name for the file", fix: "give --out FILE", exitCode: 2 });
  const { downloadFile } = await import("../../hub/index.js");
  await checkFree(out);
  let bytes = 0;
  await downloadFile(
    { url: url.href, path: out },
    {
      signal: io.signal,
      onBytes(done, total = done) {
        bytes = done;
        io.onEvent({ event: "progress", stage: "pull", done, total, unit: "bytes" });
      },
    },
  );
  io.result({ path: out, bytes }, () => `${out}\n${formatBytes(bytes)}, not checked: an address alone says no digest`);
}

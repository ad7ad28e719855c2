import { Command } from "commander";
import { EspalierError, formatBytes } from "../../base/index.js";
import { type CommandIo, runCommand } from "../output.js";

export function createCommand(): Command {
  return new Command("rm")
    .description(
      "Takes a model out of the Hugging Face cache, or one commit of it. Files that another commit has stay.",
    )
    .argument("<model>", "hf:owner/name, or hf:owner/name@commit")
    .addHelpText("after", "\nExample:\n  $ espalier rm hf:HuggingFaceTB/SmolLM2-135M-Instruct")
    .action((model: string, _options: unknown, command: Command) => runCommand(command, (io) => remove(io, model)));
}

async function remove(io: CommandIo, model: string): Promise<void> {
  const { parseModelName, removeFromCache } = await import("../../hub/index.js");
  const name = parseModelName(model);
  if (name.kind !== "hub" || name.quant !== undefined || name.file !== undefined) {
    throw new EspalierError({
      where: model,
      expected: "hf:owner/name, or hf:owner/name@commit",
      found: "something else",
      fix: "`espalier list` shows what is there",
      exitCode: 2,
    });
  }
  const { repository, revision } = name;
  const bytes = await removeFromCache(repository, revision === "main" ? {} : { commit: revision });
  io.result({ repository, freedBytes: bytes }, () => `${repository}: ${formatBytes(bytes)} freed`);
}

import { Command } from "commander";
import { runCommand } from "../output.js";

export function createCommand(): Command {
  return new Command("clean")
    .description("Says what the store holds; frees it when told to.")
    .option("--store <dir>", "the store", ".espalier")
    .option("--interrupted", "free what interrupted stages left")
    .option("--all", "free everything; the next run computes it anew")
    .addHelpText("after", "\nExample:\n  $ espalier clean --interrupted")
    .action((options: CleanOptions, command: Command) =>
      runCommand(command, async (io) => {
        const { listStore, removeFromStore } = await import("../../pipeline/index.js");
        const entries = await listStore(options.store);
        const chosen = entries.filter(({ finished }) => options.all || (options.interrupted && !finished));
        for (const entry of chosen) await removeFromStore(options.store, entry);
        const bytes = (list: typeof entries) => list.reduce((sum, entry) => sum + entry.bytes, 0);
        const { formatBytes } = await import("../../base/index.js");
        io.result({ store: options.store, bytes: bytes(entries), entries, freedBytes: bytes(chosen) }, () =>
          [
            ...entries.map(
              ({ name, bytes, finished }) =>
                `${formatBytes(bytes).padStart(10)}  ${name}${finished ? "" : "  (interrupted)"}`,
            ),
            entries.length === 0
              ? `${options.store} holds nothing`
              : `${formatBytes(bytes(entries))} in ${entries.length} stages under ${options.store}`,
            chosen.length > 0
              ? `freed ${formatBytes(bytes(chosen))}`
              : entries.length > 0
                ? "nothing freed; --interrupted or --all frees"
                : "",
          ]
            .filter(Boolean)
            .join("\n"),
        );
      }),
    );
}

interface CleanOptions {
  store: string;
  interrupted?: boolean;
  all?: boolean;
}

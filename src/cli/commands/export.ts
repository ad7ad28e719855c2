import { Command, Option } from "commander";
import { EspalierError, formatBytes } from "../../base/index.js";
import type { Model, SavedModel } from "../../models/index.js";
import { type CommandIo, runCommand } from "../output.js";

const types = ["f32", "f16", "bf16", "q8_0"] as const;

interface ExportOptions {
  format: "gguf" | "hf";
  type: (typeof types)[number];
  out: string;
}

export function createCommand(): Command {
  return new Command("export")
    .description("Writes a model as a GGUF file or a Hugging Face directory.")
    .argument("<model>", "Hugging Face directory or .gguf file")
    .addOption(new Option("--format <format>", "what to write").choices(["gguf", "hf"]).makeOptionMandatory())
    .addOption(new Option("--type <type>", "type of the weights").choices(types).default("f16"))
    .requiredOption("--out <path>", "the file (gguf) or directory (hf) to write; must not exist yet")
    .addHelpText(
      "after",
      "\nExample:\n  $ espalier export models/stories260K --format gguf --type f16 --out out/stories.gguf",
    )
    .action((path: string, options: ExportOptions, command: Command) =>
      runCommand(command, async (io) => {
        const { openModel } = await import("../../models/index.js");
        const model = await openModel(path);
        try {
          const saved = await save(model, options, io);
          for (const message of model.notices) io.onEvent({ event: "notice", level: "warning", message });
          io.result(saved, () => renderSaved(saved));
        } finally {
          await model.close();
        }
      }),
    );
}

async function save(model: Model, { format, type, out }: ExportOptions, io: CommandIo): Promise<SavedModel> {
  const { writeGguf, writeHub, writeModelfile } = await import("../../models/index.js");
  const watching = { onEvent: io.onEvent, signal: io.signal };
  if (format === "gguf") {
    const saved = await writeGguf(model, out, { type, ...watching });
    const modelfile = await writeModelfile(model, out);
    return {
      ...saved,
      notes: [...saved.notes, modelfile.kept ? `${modelfile.path} was there and is kept` : `Ollama: ${modelfile.path}`],
    };
  }
  if (type !== "q8_0")
    return writeHub(model, out, {
      type,
      card: model.sidecars.card ?? (await conversionCard(model, type)),
      ...watching,
    });
  throw new EspalierError({
    where: "--type q8_0",
    expected: "f32, f16 or bf16 with --format hf",
    found: "a GGUF type",
    fix: "add --format gguf, or choose another type",
    exitCode: 2,
  });
}

/** The card of a plain conversion: nothing was changed but the form. */
async function conversionCard({ config, sidecars, format }: Model, type: string): Promise<string> {
  const { modelParameters, renderModelCard } = await import("../../models/index.js");
  return renderModelCard({
    name: sidecars.name,
    parent: { name: sidecars.name, parameters: modelParameters(config) },
    config,
    changes: [
      `Converted from ${format === "gguf" ? "GGUF" : "a Hugging Face directory"} to safetensors, weights as ${type}.`,
    ],
    legalFiles: sidecars.legal.map(({ name }) => name),
    ...(sidecars.licence !== undefined && { licence: sidecars.licence }),
  });
}

function renderSaved({ path, bytes, format, type, notes }: SavedModel): string {
  const lines = [`${path}: ${format} ${type}, ${formatBytes(bytes)}`, ...notes.map((note) => `  ${note}`)];
  return lines.join("\n");
}

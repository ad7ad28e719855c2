import { Command, Option } from "commander";
import { createRssMeter, formatBytes } from "../../base/index.js";
import type { Model } from "../../models/index.js";
import type { CheckedExport } from "../../pipeline/index.js";
import { type CommandIo, runCommand } from "../output.js";

const types = ["f32", "f16", "bf16", "q8_0"] as const;

interface ExportOptions {
  format: "gguf" | "hf";
  type: (typeof types)[number];
  out: string;
  /** A path, true where none is named, false with --no-check. */
  check?: string | boolean;
}

export function createCommand(): Command {
  return new Command("export")
    .description("Writes a model as a GGUF file or a Hugging Face directory, and checks what was written.")
    .argument("<model>", "Hugging Face directory or .gguf file")
    .addOption(new Option("--format <format>", "what to write").choices(["gguf", "hf"]).makeOptionMandatory())
    .addOption(new Option("--type <type>", "type of the weights").choices(types).default("f16"))
    .requiredOption("--out <path>", "the file (gguf) or directory (hf) to write; must not exist yet")
    .option(
      "--check <file>",
      "text on which the logits of model and export are compared (default: the bundled stories)",
    )
    .option("--no-check", "write without comparing")
    .addHelpText(
      "after",
      "\nExample:\n  $ espalier export models/stories260K --format gguf --type f16 --out out/stories.gguf",
    )
    .action((path: string, options: ExportOptions, command: Command) =>
      runCommand(command, async (io) => {
        const { openModel } = await import("../../models/index.js");
        const meter = createRssMeter();
        const { cachedPath } = await import("../../hub/index.js");
        const model = await openModel(await cachedPath(path));
        try {
          for (const message of model.notices) io.onEvent({ event: "notice", level: "warning", message });
          const { config: _config, ...saved } = await save(model, options, io);
          const result = {
            ...saved,
            checked: saved.maxAbsLogitDifference !== undefined,
            peakRssBytes: meter.peakBytes(),
          };
          io.result(result, () => renderSaved(saved));
        } finally {
          meter.stop();
          await model.close();
        }
      }),
    );
}

async function save(model: Model, { format, type, out, check }: ExportOptions, io: CommandIo): Promise<CheckedExport> {
  const { exportChecked } = await import("../../pipeline/index.js");
  const { bundledTextPath } = await import("../../data/index.js");
  const { writeModelfile } = await import("../../models/index.js");
  const saved = await exportChecked(model, {
    format,
    type,
    out,
    ...(check !== false && { check: typeof check === "string" ? check : bundledTextPath("valid") }),
    ...(format === "hf" && { card: model.sidecars.card ?? (await conversionCard(model, type)) }),
    device: io.device,
    ...(io.threads !== undefined && { threads: io.threads }),
    onEvent: io.onEvent,
    signal: io.signal,
  });
  if (check === false)
    io.onEvent({ event: "notice", level: "warning", message: `${out} was not checked (--no-check)` });
  if (format === "hf") return saved;
  const modelfile = await writeModelfile(model, out);
  const note = modelfile.kept ? `${modelfile.path} was there and is kept` : `Ollama: ${modelfile.path}`;
  return { ...saved, notes: [...saved.notes, note] };
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

function renderSaved({ path, bytes, format, type, notes, maxAbsLogitDifference, kl }: Omit<CheckedExport, "config">) {
  const compared =
    maxAbsLogitDifference === undefined
      ? []
      : [
          `  checked in ${format === "gguf" ? "llama.cpp" : "our own reader"}: largest difference of a logit ` +
            `${maxAbsLogitDifference.toExponential(1)}, KL ${kl!.toExponential(1)} nats a token`,
        ];
  return [`${path}: ${format} ${type}, ${formatBytes(bytes)}`, ...compared, ...notes.map((note) => `  ${note}`)].join(
    "\n",
  );
}

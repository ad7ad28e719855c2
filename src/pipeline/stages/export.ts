import { join } from "node:path";
import { readJson, writeJsonAtomic } from "../../base/index.js";
import { createEngine } from "../../engine/index.js";
import type { LlamaCpp } from "../../llamacpp/index.js";
import { openModel, writeGguf, writeHub, writeModelfile } from "../../models/index.js";
import type { RunContext } from "../context.js";
import type { Artifact } from "../store.js";
import { verifyGguf, verifyHub } from "../verify.js";
import type { Subject } from "./evaluate.js";
import { type Prepared, rowsOf } from "./prepare.js";

/** One checked export of the child. */
export interface Export {
  /** Name below the export artifact. */
  file: string;
  format: string;
  bytes: number;
  maxAbsLogitDifference?: number;
  kl?: number;
  notes: string[];
}

/** Types of GGUF that a child is written in; block-quantised ones are compared by KL. */
const ggufTypes = ["f32", "f16", "q8_0"] as const;

/** Everything that the stage may leave for the user. */
export const exportNames = ["child", ...ggufTypes.map((type) => `child.${type}.gguf`), "child.q8_0.Modelfile"];

/** Sequences whose logits are compared; a few say all that a wrong layout would change. */
const comparedSequences = 2;

/** Writes the child in every target format, loads each again, and compares its logits with ours. */
export async function exportChild(
  context: RunContext,
  prepared: Prepared,
  { subject, card }: { subject: Subject; card: string },
  llama: LlamaCpp,
): Promise<{ artifact: Artifact; exports: Export[] }> {
  const { recipe, store, runtime, signal } = context;
  const stage = "export";
  const artifact = await store.produce(
    {
      stage,
      title: "safetensors and GGUF, loaded again and compared",
      version: 1,
      options: { targets: recipe.targets, card },
      inputs: { child: subject.digest, text: prepared.artifact },
      async run(directory) {
        const model = await subject.open();
        const sequences = rowsOf(prepared.sequences.evaluate).slice(0, comparedSequences);
        const engine = createEngine(runtime, model);
        const exports: Export[] = [];
        if (recipe.targets.includes("hf")) {
          const path = join(directory, "child");
          const saved = await writeHub(model, path, { overwrite: true, card, signal });
          const reloaded = await openModel(path);
          const maxAbsLogitDifference = await verifyHub(createEngine(runtime, reloaded), engine, sequences);
          await reloaded.close();
          const format = saved.config.family === "deci" ? "hf (DeciLM), f32" : "hf (Llama), f32";
          exports.push({ file: "child", format, bytes: saved.bytes, maxAbsLogitDifference, notes: saved.notes });
        }
        if (recipe.targets.includes("gguf")) {
          for (const type of ggufTypes) {
            const file = `child.${type}.gguf`;
            const saved = await writeGguf(model, join(directory, file), { type, overwrite: true, signal });
            const checked = await verifyGguf({ llama, path: saved.path, type, engine, sequences, signal });
            exports.push({ file, format: `gguf, ${type}`, bytes: saved.bytes, ...checked, notes: saved.notes });
          }
          await writeModelfile(model, join(directory, "child.q8_0.gguf"), { overwrite: true });
        }
        await model.close();
        await writeJsonAtomic(join(directory, "exports.json"), exports);
      },
    },
    context,
  );
  return { artifact, exports: (await readJson(join(artifact.directory, "exports.json"))) as Export[] };
}

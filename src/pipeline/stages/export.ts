import { join } from "node:path";
import { readJson, writeJsonAtomic } from "../../base/index.js";
import { createEngine, type Engine } from "../../engine/index.js";
import type { LlamaCpp } from "../../llamacpp/index.js";
import { type Model, openModel, parentInCard, writeGguf, writeHub, writeModelfile } from "../../models/index.js";
import type { RunContext } from "../context.js";
import type { Artifact } from "../store.js";
import { verifyGguf, verifyHub } from "../verify.js";
import type { Subject } from "./evaluate.js";
import { type Prepared, rowsOf } from "./prepare.js";

/** One checked export of the child. */
export interface Export {
  /** Name below the export artifact. */
  file: string;
  format: "hf" | "gguf";
  /** Type of the weights. */
  type: string;
  /** Architecture that the file names: the parent's where blocks are alike, DeciLM where they are not. */
  architecture: string;
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
): Promise<{ artifact: Artifact; exports: Export[] }> {
  const { recipe, store, runtime, llama, signal } = context;
  const stage = `export/${subject.name}`;
  const artifact = await store.produce(
    {
      stage,
      title: "safetensors and GGUF, loaded again and compared",
      version: 2,
      options: { targets: recipe.targets, card },
      inputs: { child: subject.digest, text: prepared.artifact },
      async run(directory) {
        const model = withParent(await subject.open(), card);
        const sequences = rowsOf(prepared.sequences.evaluate).slice(0, comparedSequences);
        const engine = createEngine(runtime, model);
        const work = { directory, model, engine, sequences, signal };
        const exports: Export[] = [];
        if (recipe.targets.includes("hf")) exports.push(await exportHub(context, work, card));
        if (recipe.targets.includes("gguf")) exports.push(...(await exportGgufs(llama, work)));
        await model.close();
        await writeJsonAtomic(join(directory, "exports.json"), exports);
      },
    },
    context,
  );
  return { artifact, exports: (await readJson(join(artifact.directory, "exports.json"))) as Export[] };
}

/** What the child lies on disk with are its parent's sidecars; its own card says what it was made from. */
function withParent(model: Model, card: string): Model {
  const { parent: _, ...sidecars } = model.sidecars;
  const parent = parentInCard(card);
  return { ...model, sidecars: { ...sidecars, ...(parent !== undefined && { parent }) } };
}

interface ExportWork {
  directory: string;
  model: Model;
  engine: Engine;
  sequences: Int32Array[];
  signal: AbortSignal;
}

/** Safetensors, opened again by our own reader. */
async function exportHub({ runtime }: RunContext, work: ExportWork, card: string): Promise<Export> {
  const { directory, model, engine, sequences, signal } = work;
  const path = join(directory, "child");
  const { bytes, notes, config } = await writeHub(model, path, { overwrite: true, card, signal });
  const reloaded = await openModel(path);
  const maxAbsLogitDifference = await verifyHub(createEngine(runtime, reloaded), engine, sequences);
  await reloaded.close();
  const architecture = config.family === "deci" ? "DeciLM" : "Llama";
  return { file: "child", format: "hf", type: "f32", architecture, bytes, maxAbsLogitDifference, notes };
}

/** GGUF in every type, each loaded by llama.cpp, and the Modelfile of the one that people will run. */
async function exportGgufs(llama: LlamaCpp, work: ExportWork): Promise<Export[]> {
  const { directory, model, engine, sequences, signal } = work;
  const exports: Export[] = [];
  for (const type of ggufTypes) {
    const file = `child.${type}.gguf`;
    const { path, bytes, notes, config } = await writeGguf(model, join(directory, file), {
      type,
      overwrite: true,
      signal,
    });
    const checked = await verifyGguf({ llama, path, type, engine, sequences, signal });
    exports.push({ file, format: "gguf", type, architecture: config.family, bytes, ...checked, notes });
  }
  await writeModelfile(model, join(directory, "child.q8_0.gguf"), { overwrite: true });
  return exports;
}

import type { Engine } from "../engine/index.js";
import type { Model } from "../models/index.js";
import type { Runtime } from "../runtime/index.js";
import type { Tokenizer } from "../tokenizer/index.js";
import type { CommandIo } from "./output.js";

export interface LoadedModel {
  model: Model;
  engine: Engine;
  tokenizer: Tokenizer;
}

/** A model ready to run; what its reader has to say goes out as warnings. */
export async function loadModel(io: CommandIo, runtime: Runtime, path: string): Promise<LoadedModel> {
  const [{ cachedPath }, { openModel }, { createEngine, generousCacheBytes }, { loadTokenizer }] = await Promise.all([
    import("../hub/index.js"),
    import("../models/index.js"),
    import("../engine/index.js"),
    import("../tokenizer/index.js"),
  ]);
  const model = await openModel(await cachedPath(path));
  for (const message of model.notices) io.onEvent({ event: "notice", level: "warning", message });
  // Every token that is generated reads all weights.
  const engine = createEngine(runtime, model, { cacheBytes: generousCacheBytes() });
  return { model, engine, tokenizer: loadTokenizer(model.sidecars.tokenizer, path) };
}

/** The device and threads that the command line asks for. */
export async function openRuntime({ device, threads }: CommandIo): Promise<Runtime> {
  const { createRuntime } = await import("../runtime/index.js");
  return createRuntime({ device, ...(threads !== undefined && { threads }) });
}

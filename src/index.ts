/**
 * Espalier as a library: what most programs need. Each area has the rest (`espalier/graph`, `espalier/puzzle`, ...).
 *
 * @example
 * ```ts
 * import { createEngine, createRuntime, generate, loadTokenizer, openModel } from "espalier";
 *
 * const runtime = await createRuntime();
 * const model = await openModel("models/stories260K"); // a Hugging Face directory, or a .gguf file
 * const tokenizer = loadTokenizer(model.sidecars.tokenizer);
 *
 * const { ids } = await generate(createEngine(runtime, model), tokenizer.encode("Once upon a time"));
 * console.log(tokenizer.decode(ids));
 *
 * await model.close();
 * await runtime.dispose();
 * ```
 *
 * @module
 */
export { EspalierError, type OnEvent } from "./base/index.js";
export { createEngine, type Engine, generate } from "./engine/index.js";
export { measurePerplexity } from "./eval/index.js";
export { createGraph, gradients } from "./graph/index.js";
export { type Model, modelParameters, openModel, writeGguf, writeHub } from "./models/index.js";
export { checkRecipe, type Recipe, type RecipeInput, readRecipe, reshape } from "./pipeline/index.js";
export { search } from "./puzzle/index.js";
export { createRuntime, type Runtime } from "./runtime/index.js";
export { loadTokenizer, type Tokenizer } from "./tokenizer/index.js";
export { train } from "./train/index.js";

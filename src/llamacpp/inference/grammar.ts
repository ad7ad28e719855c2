/** @module What an answer must match, as llama.cpp's grammars. */
import { EspalierError, messageOf } from "../../base/index.js";
import { LlamaGrammar, LlamaGrammarEvaluationState } from "../binding.js";
import type { Grammar } from "../inference.js";
import type { HeldModel } from "./held-model.js";
import { jsonGrammar, schemaToGbnf } from "./json-schema.js";

/** The state of a grammar at the beginning of an answer, for the sampler. */
export function buildGrammar({ gguf, llama, model }: HeldModel, grammar: Grammar): unknown {
  const text = gbnfOf(grammar);
  try {
    const parsed = new LlamaGrammar(llama, { grammar: text });
    const state = new LlamaGrammarEvaluationState({ model, grammar: parsed });
    return (state as unknown as { _state: unknown })._state;
  } catch (cause) {
    throw new EspalierError({
      where: `${gguf}: grammar`,
      expected: "a GBNF grammar with a rule named root",
      found: messageOf(cause),
      exitCode: 2,
      cause,
    });
  }
}

function gbnfOf(grammar: Grammar): string {
  switch (grammar.kind) {
    case "json":
      return jsonGrammar;
    case "schema":
      return schemaToGbnf(grammar.schema);
    case "gbnf":
      return grammar.text;
  }
}

/** @module JSON schemas of requests as grammars: what a grammar cannot hold to is refused before anything runs. */

import { messageOf } from "../base/index.js";
import { type Grammar, schemaToGbnf } from "../llamacpp/index.js";
import { Refusal } from "./refusal.js";

/** The grammar of a schema that came in the field `param`. */
export function schemaGrammar(schema: unknown, param: string): Grammar {
  try {
    schemaToGbnf(schema);
  } catch (cause) {
    throw new Refusal({ status: 400, param, where: `${param}: ${messageOf(cause)}`, cause });
  }
  return { kind: "schema", schema };
}

/** A schema that is put into another one at `place`: its references lead there. */
export function movedSchema(schema: unknown, place: string): unknown {
  if (Array.isArray(schema)) return schema.map((part) => movedSchema(part, place));
  if (typeof schema !== "object" || schema === null) return schema;
  const entries = Object.entries(schema).map(([key, value]) => {
    if (key === "$ref" && typeof value === "string") return [key, value.replace(/^#/, `#${place}`)];
    return [key, movedSchema(value, place)];
  });
  return Object.fromEntries(entries);
}

/** @module GET /v1/models and GET /v1/models/:id. */
import { statSync } from "node:fs";
import type { Reply } from "../http.js";
import type { ServedModel } from "../model-pool.js";
import type { Service } from "../service.js";

export function listModels({ pool }: Service): Reply {
  return { kind: "json", value: { object: "list", data: pool.list().map(modelObject) } };
}

export function showModel({ pool }: Service, id: string): Reply {
  const [name, ...others] = pool.resolve(id);
  const model = pool.list().find((known) => known.name === name)!;
  return { kind: "json", value: modelObject(others.length > 0 ? { ...model, name: id } : model) };
}

/** Both dialects' fields: OpenAI's, and Anthropic's `type`, `display_name` and `created_at`. */
function modelObject({ name, gguf }: ServedModel) {
  const changed = statSync(gguf, { throwIfNoEntry: false })?.mtime ?? new Date(0);
  return {
    id: name,
    object: "model",
    created: Math.floor(changed.getTime() / 1000),
    owned_by: "espalier",
    type: "model",
    display_name: name,
    created_at: changed.toISOString(),
  };
}

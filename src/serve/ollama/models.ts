/** @module GET /api/tags, /api/ps, /api/version and POST /api/show. */
import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import { z } from "../../base/index.js";
import { countElements, type GgufMetadata, openGgufFile } from "../../formats/index.js";
import type { Exchange, Reply } from "../http.js";
import type { ServedModel } from "../model-pool.js";
import { harmless, parseRequest } from "../schema.js";
import type { Service } from "../service.js";
import { thinkingSwitchOf } from "../thinking.js";

interface Facts {
  bytes: number;
  changed: Date;
  digest: string;
  architecture: string;
  parameters: number;
  type: string;
  metadata: GgufMetadata;
}

export async function tags({ pool }: Service): Promise<Reply> {
  const models = await Promise.all(pool.list().map(tagObject));
  return { kind: "json", value: { models } };
}

async function tagObject(model: ServedModel) {
  const facts = await factsOf(model).catch(() => undefined);
  const { bytes = 0, changed = new Date(0), digest = "" } = facts ?? {};
  return {
    name: model.name,
    model: model.name,
    modified_at: changed.toISOString(),
    size: bytes,
    digest,
    details: details(facts),
  };
}

function details(facts: Facts | undefined) {
  const family = facts?.architecture ?? "";
  return {
    parent_model: "",
    format: "gguf",
    family,
    families: family === "" ? [] : [family],
    parameter_size: facts ? shortCount(facts.parameters) : "",
    quantization_level: facts?.type ?? "",
  };
}

/** Of a model that stays, or is in use: a hundred years. */
const foreverMs = 100 * 365 * 86_400_000;

export async function ps({ pool }: Service): Promise<Reply> {
  const served = new Map(pool.list().map((model) => [model.name, model]));
  const models = await Promise.all(
    pool.loaded().map(async ({ name, model, expiresAt }) => ({
      ...(await tagObject(served.get(name)!)),
      size: model.info.memoryBytes,
      size_vram: 0,
      context_length: model.info.contextSize,
      expires_at: (expiresAt ?? new Date(Date.now() + foreverMs)).toISOString(),
    })),
  );
  return { kind: "json", value: { models } };
}

const showSchema = z.strictObject({
  model: z.string().optional(),
  name: z.string().optional(),
  verbose: z.boolean().optional(),
  system: harmless,
  template: harmless,
});

export async function show({ pool }: Service, { body }: Exchange): Promise<Reply> {
  const { model: asked, name: former, verbose = false } = parseRequest(showSchema, body);
  const [name] = pool.resolve(asked ?? former ?? "");
  const model = pool.list().find((known) => known.name === name)!;
  const facts = await factsOf(model);
  const text = (key: string) => String(facts.metadata.get(key)?.value ?? "");
  const template = text("tokenizer.chat_template");
  return {
    kind: "json",
    value: {
      modelfile: `FROM ${model.gguf}\n`,
      parameters: "",
      license: text("general.license"),
      template,
      details: details(facts),
      model_info: modelInfo(facts.metadata, verbose),
      capabilities: capabilities(template, text("general.name")),
      modified_at: facts.changed.toISOString(),
    },
  };
}

function capabilities(template: string, name: string): string[] {
  const thinks = thinkingSwitchOf({ chatTemplate: template, name }) !== "none";
  return ["completion", "tools", ...(thinks ? ["thinking"] : [])];
}

/** Lists are told only to those who ask: a vocabulary is megabytes. */
function modelInfo(metadata: GgufMetadata, verbose: boolean): Record<string, unknown> {
  const entries = [...metadata].map(([key, entry]) => {
    if (entry.type !== "array") return [key, typeof entry.value === "bigint" ? Number(entry.value) : entry.value];
    return [key, verbose ? [...(entry.value as Iterable<unknown>)].map(plain) : null];
  });
  return Object.fromEntries(entries);
}

const plain = (value: unknown) => (typeof value === "bigint" ? Number(value) : value);

const known = new Map<string, Facts>();

/** Read off the header; kept while the file does not change. */
async function factsOf({ gguf }: ServedModel): Promise<Facts> {
  const { size, mtime } = await stat(gguf);
  const before = known.get(gguf);
  if (before?.bytes === size && before.changed.getTime() === mtime.getTime()) return before;
  const file = await openGgufFile(gguf);
  try {
    const infos = file.names.map((name) => file.info(name)!);
    const facts: Facts = {
      bytes: size,
      changed: mtime,
      digest: createHash("sha256").update(`${gguf}\n${size}\n${mtime.getTime()}`).digest("hex"),
      architecture: String(file.metadata.get("general.architecture")?.value ?? ""),
      parameters: infos.reduce((sum, { shape }) => sum + countElements(shape), 0),
      type: commonest(infos),
      metadata: file.metadata,
    };
    known.set(gguf, facts);
    return facts;
  } finally {
    await file.close();
  }
}

function commonest(infos: readonly { type: string; byteLength: number }[]): string {
  const bytes = new Map<string, number>();
  for (const { type, byteLength } of infos) bytes.set(type, (bytes.get(type) ?? 0) + byteLength);
  return [...bytes].sort((a, b) => b[1] - a[1])[0]?.[0] ?? "";
}

/** As Ollama shows it: 135M, 8.0B. */
function shortCount(count: number): string {
  if (count >= 1e9) return `${(count / 1e9).toFixed(1)}B`;
  return count >= 1e6 ? `${(count / 1e6).toFixed(2)}M` : `${(count / 1e3).toFixed(2)}K`;
}

/** @module What travels with the weights: tokenizer, chat template, generation settings, licence and notices. */
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { checkSchema, EspalierError, fileExists, readJson, readText, z } from "../base/index.js";
import type { GgufMetadata } from "../formats/index.js";
import { parentInCard } from "./card.js";
import type { SidecarFile, Sidecars, TokenizerSource } from "./config.js";

const legalNames = /^(licen[cs]e|notice|copying|use[-_ ]?policy|acceptable[-_ ]?use|third[-_ ]?party)/i;
const maxLegalBytes = 1 << 20;
const jsonObject = z.record(z.string(), z.unknown());

/** Sidecars of a Hugging Face directory. */
export async function readHubSidecars(directory: string): Promise<Sidecars> {
  const tokenizerConfig = await optionalJson(join(directory, "tokenizer_config.json"));
  const generationConfig = await optionalJson(join(directory, "generation_config.json"));
  const chatTemplate = await readChatTemplate(directory, tokenizerConfig);
  const card = await readCard(directory);
  const licence = card === undefined ? undefined : statedLicence(card);
  const parent = card === undefined ? undefined : parentInCard(card);
  const tokenizer = await readHubTokenizer(directory, tokenizerConfig);
  return {
    name: nameOf(resolve(directory)),
    legal: await readLegalFiles(directory),
    ...(tokenizer && { tokenizer }),
    ...(chatTemplate !== undefined && { chatTemplate }),
    ...(generationConfig && { generationConfig }),
    ...(card !== undefined && { card }),
    ...(parent !== undefined && { parent }),
    ...(licence !== undefined && { licence }),
  };
}

async function optionalJson(path: string): Promise<Record<string, unknown> | undefined> {
  if (!(await fileExists(path))) return undefined;
  return checkSchema(jsonObject, await readJson(path), path);
}

async function readHubTokenizer(
  directory: string,
  config: Record<string, unknown> | undefined,
): Promise<TokenizerSource | undefined> {
  const path = join(directory, "tokenizer.json");
  if (!(await fileExists(path))) return undefined;
  const specialTokens = await optionalJson(join(directory, "special_tokens_map.json"));
  return {
    kind: "hf",
    tokenizer: await readJson(path),
    ...(config && { config }),
    ...(specialTokens && { specialTokens }),
  };
}

/** The directory's name; of a snapshot in the hub's cache, which is named by its commit, the repository: `owner/name`. */
export function nameOf(directory: string): string {
  const [, repository] = /models--([^/\\]+)[/\\]snapshots[/\\][^/\\]+$/.exec(directory) ?? [];
  return repository?.replace("--", "/") ?? basename(directory);
}

const templateList = z.array(z.object({ name: z.string(), template: z.string() }));

/** A file of its own wins over the key of tokenizer_config.json; of several named templates, `default` is taken. */
async function readChatTemplate(directory: string, config?: Record<string, unknown>): Promise<string | undefined> {
  const path = join(directory, "chat_template.jinja");
  if (await fileExists(path)) return readText(path);
  const stated = (await optionalJson(join(directory, "chat_template.json")))?.chat_template ?? config?.chat_template;
  if (stated === undefined || stated === null) return undefined;
  if (typeof stated === "string") return stated;
  const list = checkSchema(templateList, stated, `${directory} chat_template`);
  return (list.find(({ name }) => name === "default") ?? list[0])?.template;
}

async function readCard(directory: string): Promise<string | undefined> {
  const path = join(directory, "README.md");
  return (await fileExists(path)) ? readText(path) : undefined;
}

/** `license:` of the model card's front matter. */
function statedLicence(card: string): string | undefined {
  const front = /^---\r?\n([\s\S]*?)\r?\n---/.exec(card)?.[1];
  return front && /^license:\s*["']?([^"'\r\n]+)/m.exec(front)?.[1]?.trim();
}

async function readLegalFiles(directory: string): Promise<SidecarFile[]> {
  const names = (await readdir(directory)).filter((name) => legalNames.test(name)).sort();
  const files: SidecarFile[] = [];
  for (const name of names) {
    const path = join(directory, name);
    const { size } = await stat(path).then((info) => (info.isFile() ? info : { size: -1 }));
    if (size < 0) continue;
    if (size > maxLegalBytes) {
      throw new EspalierError({ where: path, expected: `at most ${maxLegalBytes} bytes`, found: `${size} bytes` });
    }
    files.push({ name, bytes: new Uint8Array(await readFile(path)) });
  }
  return files;
}

/** Keys under which our own GGUF files carry licence and notice files, so that they survive the format. */
export const legalKeyPrefix = "espalier.legal.";

/** Of the GGUF standard: the first of the models that a model was made from. */
export const baseModelKeys = {
  count: "general.base_model.count",
  name: "general.base_model.0.name",
  organisation: "general.base_model.0.organization",
  repository: "general.base_model.0.repo_url",
} as const;

/** Sidecars of a GGUF header. */
export function readGgufSidecars(metadata: GgufMetadata, path: string): Sidecars {
  const text = (key: string): string | undefined => {
    const value = metadata.get(key)?.value;
    return typeof value === "string" ? value : undefined;
  };
  const tokenizerKeys = [...metadata].filter(([key]) => key.startsWith("tokenizer."));
  const legal = [...metadata].filter(([key]) => key.startsWith(legalKeyPrefix));
  const chatTemplate = text("tokenizer.chat_template");
  const licence = text("general.license");
  const parent = parentInHeader(text);
  return {
    name: text("general.name") || basename(path).replace(/\.gguf$/, ""),
    legal: legal
      .map(([key, { value }]) => ({
        name: key.slice(legalKeyPrefix.length),
        bytes: new TextEncoder().encode(String(value)),
      }))
      // A name from a file that anyone may have written becomes a path: only plain ones are taken.
      .filter(({ name }) => legalNames.test(name) && basename(name) === name),
    ...(tokenizerKeys.length > 0 && {
      tokenizer: {
        kind: "gguf" as const,
        metadata: Object.fromEntries(tokenizerKeys.map(([key, { value }]) => [key, value])),
      },
    }),
    ...(chatTemplate !== undefined && { chatTemplate }),
    ...(licence !== undefined && { licence }),
    ...(parent !== undefined && { parent }),
  };
}

/** The first base model, by its place on the hub where the header has one. */
function parentInHeader(text: (key: string) => string | undefined): string | undefined {
  const [name, organisation] = [text(baseModelKeys.name), text(baseModelKeys.organisation)];
  const [, repository] = /huggingface\.co\/([^/]+\/[^/]+?)\/?$/.exec(text(baseModelKeys.repository) ?? "") ?? [];
  return repository ?? (name && organisation ? `${organisation}/${name}` : name);
}

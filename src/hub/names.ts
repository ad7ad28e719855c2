/** @module What a model is asked for by: `hf:owner/name:Q4_K_M`, `owner/name@revision`, an address, a path. */
import { EspalierError } from "../base/index.js";

export interface HubName {
  kind: "hub";
  /** `owner/name`. */
  repository: string;
  /** Branch, tag or commit. Defaults to `main`. */
  revision: string;
  /** File type of a GGUF, such as `Q4_K_M`. */
  quant?: string;
  /** One file of the repository. */
  file?: string;
}

export type ModelName = HubName | { kind: "url"; url: URL } | { kind: "path"; path: string };

const part = "[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?";
const hubPattern = new RegExp(`^(${part}/${part})((?:/[^:@]+)?)(?:@([^:]+))?(?::([A-Za-z0-9_.]+))?$`);

/**
 * `hf:owner/name`, with `@revision`, `:quant` or `/path/of/file` after it; the `hf:` may be left out where no such path
 * exists. Addresses of files on a hub's pages (`.../blob/main/...`) are taken as names in it.
 */
export function parseModelName(text: string, { exists = false } = {}): ModelName {
  if (exists && !text.startsWith("hf:")) return { kind: "path", path: text };
  if (/^https?:\/\//i.test(text)) return parseAddress(text);
  const found = hubPattern.exec(text.replace(/^hf:(\/\/)?/, ""));
  if (found) return hubName(found);
  throw new EspalierError({
    where: text,
    expected: "hf:owner/name, with :quant, @revision or /file after it, an http address, or a path that exists",
    found: "neither",
    fix: "for example hf:bartowski/SmolLM2-135M-Instruct-GGUF:Q4_K_M",
    exitCode: 2,
  });
}

function hubName([, repository, file, revision = "main", quant]: RegExpExecArray): HubName {
  return {
    kind: "hub",
    repository: repository!,
    revision,
    ...(quant && { quant: quant.toUpperCase() }),
    ...(file && { file: file.slice(1) }),
  };
}

const hubHosts = ["huggingface.co", "www.huggingface.co", "hf.co"];
const pagePattern = new RegExp(`^/(${part}/${part})(?:/(?:blob|resolve|tree)/([^/]+)(?:/(.+))?)?/?$`);

function parseAddress(text: string): ModelName {
  const url = new URL(text);
  const page = hubHosts.includes(url.host) ? pagePattern.exec(decodeURIComponent(url.pathname)) : null;
  if (!page) return { kind: "url", url };
  const [, repository, revision = "main", file] = page;
  return { kind: "hub", repository: repository!, revision, ...(file && { file }) };
}

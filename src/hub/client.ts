/** @module The Hugging Face hub: what a repository holds, and where its cache lies. The one file that imports `@huggingface/hub`. */
import { getHFHubCachePath, getRepoFolderName, HubApiError, listFiles, modelInfo } from "@huggingface/hub";
import { EspalierError, messageOf } from "../base/index.js";
import type { Digest } from "./download.js";

export interface HubOptions {
  /** Address of the hub. Defaults to `HF_ENDPOINT`, else https://huggingface.co. */
  endpoint?: string;
  /** Defaults to `HF_TOKEN`. */
  token?: string;
  signal?: AbortSignal;
}

export interface RemoteFile {
  path: string;
  size: number;
  digest: Digest;
}

export interface RemoteRepository {
  repository: string;
  commit: string;
  files: RemoteFile[];
}

export function hubEndpoint({
  endpoint = process.env.HF_ENDPOINT ?? "https://huggingface.co",
}: HubOptions = {}): string {
  return endpoint.replace(/\/+$/, "");
}

export function hubHeaders({ token = process.env.HF_TOKEN }: HubOptions = {}): Record<string, string> {
  return token ? { authorization: `Bearer ${token}` } : {};
}

/** `HF_HUB_CACHE`, or `hub` in `HF_HOME`: the directory that Python's tools share. */
export function hubCacheDirectory(): string {
  return process.env.HF_HUB_CACHE ?? getHFHubCachePath();
}

/** `models--owner--name`. */
export function repositoryFolder(repository: string): string {
  return getRepoFolderName({ name: repository, type: "model" });
}

/** The files of a revision and the commit that it stands for. */
export async function openRepository(
  repository: string,
  revision: string,
  options: HubOptions = {},
): Promise<RemoteRepository> {
  const { signal } = options;
  const { authorization } = hubHeaders(options);
  const request = {
    hubUrl: hubEndpoint(options),
    ...(authorization && { accessToken: authorization.slice("Bearer ".length) }),
    fetch: (input: Parameters<typeof fetch>[0], init?: RequestInit) =>
      fetch(input, { ...init, ...(signal && { signal }) }),
  };
  try {
    const { sha: commit } = await modelInfo({ ...request, name: repository, revision, additionalFields: ["sha"] });
    const files: RemoteFile[] = [];
    for await (const entry of listFiles({ ...request, repo: repository, revision: commit, recursive: true })) {
      if (entry.type === "file") files.push(remoteFile(entry));
    }
    return { repository, commit, files };
  } catch (cause) {
    throw explain(cause, repository, revision, signal);
  }
}

function remoteFile({
  path,
  size,
  oid,
  lfs,
}: {
  path: string;
  size: number;
  oid?: string;
  lfs?: { oid: string; size: number };
}): RemoteFile {
  const digest: Digest = lfs ? { kind: "sha256", value: lfs.oid } : { kind: "git-sha1", value: oid ?? "" };
  return { path, size: lfs?.size ?? size, digest };
}

const fixes: Record<number, string> = {
  401: "check the name; if it is private, set HF_TOKEN to a token that may read it",
  403: "accept the model's terms on its page, and set HF_TOKEN to a token that may read it",
  404: "check the name and the revision",
};

function explain(cause: unknown, repository: string, revision: string, signal: AbortSignal | undefined): unknown {
  if (signal?.aborted) return signal.reason;
  const status = cause instanceof HubApiError ? cause.statusCode : undefined;
  const reason = cause instanceof Error && cause.cause !== undefined ? cause.cause : cause;
  const fix = status === undefined ? "is there a network? HF_ENDPOINT names another hub" : fixes[status];
  return new EspalierError({
    where: `hf:${repository}@${revision}`,
    found: status === undefined ? messageOf(reason) : `HTTP ${status}`,
    ...(fix && { fix }),
  });
}

/** @module A server for tests that answers like the Hugging Face hub, and misbehaves when it is told to. */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** What the next answers for a file do instead of sending it. Each is used up by one request. */
export type Mischief =
  /** Cuts the connection after so many bytes of the answer. */
  | { kind: "drop"; after: number }
  /** Sends so many bytes and then nothing. */
  | { kind: "stall"; after: number }
  | { kind: "status"; status: number; headers?: Record<string, string> }
  /** Sends other bytes of the same length. */
  | { kind: "corrupt" }
  /** Ignores the asked range. */
  | { kind: "whole" }
  /** Sends more than it says on the hub. */
  | { kind: "longer" };

export interface FakeHub {
  url: string;
  /** `METHOD path`, ranges behind them. */
  requests: string[];
  misbehave(file: string, ...mischief: Mischief[]): void;
  close(): Promise<void>;
}

export interface FakeRepository {
  /** Contents by path. */
  files: Readonly<Record<string, Uint8Array>>;
  commit: string;
  /** Only with this token. */
  token?: string;
  gated?: boolean;
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const gitSha1 = (bytes: Uint8Array) => createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
/** Larger files are kept outside of git and known by their SHA-256. */
const lfsBytes = 1000;

export async function startFakeHub(repositories: Readonly<Record<string, FakeRepository>>): Promise<FakeHub> {
  const requests: string[] = [];
  const planned = new Map<string, Mischief[]>();
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url!, "http://hub").pathname);
    requests.push(`${request.method} ${path}${request.headers.range ? ` ${request.headers.range}` : ""}`);
    answer(request, response, path);
  });
  const answer = (request: IncomingMessage, response: ServerResponse, path: string) => {
    const [name, repository] =
      Object.entries(repositories).find(([known]) => path.includes(`/${known}/`) || path.endsWith(`/${known}`)) ?? [];
    const file = new RegExp(`^/${name}/resolve/[^/]+/(.+)$`).exec(path)?.[1];
    const content = file === undefined ? undefined : repository?.files[file];
    const token = repository?.token;
    if (!repository) send(response, 404, { error: "Repository not found" });
    else if (token && request.headers.authorization !== `Bearer ${token}`) {
      send(response, repository.gated ? 403 : 401, { error: "Access to this model is restricted" });
    } else if (path.startsWith("/api/")) answerApi(response, path, name!, repository);
    else if (content) sendFile(request, response, content, planned.get(file!)?.shift());
    else send(response, 404, { error: "Entry not found" });
  };
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    misbehave: (file, ...mischief) => planned.set(file, [...(planned.get(file) ?? []), ...mischief]),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

function answerApi(response: ServerResponse, path: string, name: string, { files, commit }: FakeRepository): void {
  const revision = /\/(?:revision|tree)\/([^/]+)/.exec(path)?.[1] ?? "main";
  const about = { _id: "0", id: name, sha: commit, private: false, gated: false, downloads: 0, likes: 0 };
  const entries = Object.entries(files).map(([file, bytes]) => ({
    type: "file",
    path: file,
    size: bytes.length,
    oid: gitSha1(bytes),
    ...(bytes.length > lfsBytes && { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 134 } }),
  }));
  if (!["main", commit].includes(revision)) send(response, 404, { error: "Invalid rev id" });
  else send(response, 200, path.includes("/tree/") ? entries : about);
}

function sendFile(request: IncomingMessage, response: ServerResponse, content: Uint8Array, mischief?: Mischief): void {
  if (mischief?.kind === "status") {
    response.writeHead(mischief.status, mischief.headers).end("{}");
    return;
  }
  const asked = /bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1];
  const from = asked === undefined || mischief?.kind === "whole" ? 0 : Number(asked);
  if (from >= content.length && from > 0) {
    response.writeHead(416, { "content-range": `bytes */${content.length}` }).end();
    return;
  }
  const longer = mischief?.kind === "longer" ? Buffer.concat([content, Buffer.alloc(10)]) : content;
  const bytes = (mischief?.kind === "corrupt" ? longer.map((byte) => byte ^ 1) : longer).subarray(from);
  const range = from > 0 ? { "content-range": `bytes ${from}-${content.length - 1}/${content.length}` } : {};
  response.writeHead(from > 0 ? 206 : 200, { "content-length": bytes.length, ...range });
  if (mischief?.kind !== "drop" && mischief?.kind !== "stall") {
    response.end(bytes);
    return;
  }
  response.write(bytes.subarray(0, mischief.after), () => {
    // What is on its way is lost when a connection is cut at once.
    if (mischief.kind === "drop") setTimeout(() => response.destroy(), 50);
  });
}

/** @module HTTP: who may ask, how much, how slowly, and how answers and errors go out. The one file that imports hono. */
import { createHash, randomUUID, timingSafeEqual } from "node:crypto";
import { once } from "node:events";
import type { Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { createAdaptorServer } from "@hono/node-server";
import { type Context, Hono } from "hono";
import { EspalierError, isNodeError, messageOf } from "../base/index.js";
import { readJsonBody } from "./body.js";
import { type HttpProblem, httpProblem, Refusal } from "./refusal.js";

/** How a family of endpoints writes its errors. */
export interface Dialect {
  error(problem: HttpProblem, requestId: string): unknown;
  /** In a stream that has begun. */
  streamError(problem: HttpProblem, requestId: string): string;
}

/** One request, as handlers see it. */
export interface Exchange {
  id: string;
  /** Parsed JSON of a POST. */
  body: unknown;
  params: Readonly<Record<string, string>>;
  /** Aborted when the client is gone. */
  signal: AbortSignal;
}

export type Reply =
  | { kind: "json"; value: unknown; status?: number }
  | { kind: "text"; text: string; type: string }
  /** The status goes out with the first piece; an error before it has its own. */
  | { kind: "stream"; type: "text/event-stream" | "application/x-ndjson"; pieces: AsyncIterable<string> };

export interface Route {
  method: "GET" | "POST";
  path: string;
  dialect: Dialect;
  /** No key is asked for. Defaults to false. */
  open?: boolean;
  handle(exchange: Exchange): Reply | Promise<Reply>;
}

export interface HttpOptions {
  routes: readonly Route[];
  /** The dialect in which an address that nobody has is told. */
  dialectOf(path: string): Dialect;
  host: string;
  /** 0 takes any that is free. */
  port: number;
  apiKeys: readonly string[];
  /** Origins of web pages that may ask; `*` for all. */
  corsOrigins: readonly string[];
  maxBodyBytes: number;
  /** For the headers, and for the body, each. */
  receiveTimeoutMs: number;
  onAnswer?: (route: string, status: number, seconds: number) => void;
}

export interface HttpServer {
  url: string;
  port: number;
  /** Takes no more requests, lets those that run finish for so long, then cuts them. */
  stop(graceMs: number): Promise<void>;
}

export async function startHttp(options: HttpOptions): Promise<HttpServer> {
  const state: State = { ...options, stopping: false, running: new Set(), checkKey: createKeyCheck(options.apiKeys) };
  const server = createAdaptorServer({
    fetch: createApp(state).fetch,
    serverOptions: {
      headersTimeout: options.receiveTimeoutMs,
      // The body has its own clock, which answers in the dialect's words.
      requestTimeout: 0,
      connectionsCheckingInterval: Math.min(1000, options.receiveTimeoutMs),
    },
  }) as Server;
  server.on("clientError", (error: NodeJS.ErrnoException, socket: Socket) => refuseRaw(error, socket, options));
  await listen(server, options);
  const { port } = server.address() as AddressInfo;
  const shownHost = options.host.includes(":") ? `[${options.host}]` : options.host;
  return { url: `http://${shownHost}:${port}`, port, stop: (graceMs) => stop(server, state, graceMs) };
}

async function listen(server: Server, { host, port }: HttpOptions): Promise<void> {
  server.listen(port, host);
  try {
    await once(server, "listening");
  } catch (cause) {
    const found = isNodeError(cause, "EADDRINUSE") ? "a port that is taken" : messageOf(cause);
    throw new EspalierError({ where: `${host}:${port}`, found, fix: "give another with --port", exitCode: 2, cause });
  }
}

interface State extends HttpOptions {
  stopping: boolean;
  running: Set<AbortController>;
  checkKey(given: string | undefined): boolean;
}

async function stop(server: Server, state: State, graceMs: number): Promise<void> {
  state.stopping = true;
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  // A connection that has had its last answer would wait for another request.
  const idle = setInterval(() => server.closeIdleConnections(), 20);
  const timer = setTimeout(() => {
    const where = "the server is stopping";
    for (const running of state.running) running.abort(new Refusal({ status: 503, where, retryAfterSeconds: 5 }));
    setTimeout(() => server.closeAllConnections(), 500).unref();
  }, graceMs);
  await closed;
  clearInterval(idle);
  clearTimeout(timer);
}

function createApp(state: State): Hono {
  const app = new Hono();
  const paths = [...new Set(state.routes.map(({ path }) => path))];
  for (const path of paths) {
    const routes = state.routes.filter((route) => route.path === path);
    app.all(path, (context) => answer(state, context, routes));
  }
  app.notFound((context) => answer(state, context, []));
  return app;
}

/** Why a request ends that nobody waits for; metrics count it as 499. */
const clientGone = new Error("the client is gone");

/** Every request comes through here, and nothing that is thrown leaves it. */
async function answer(state: State, context: Context, routes: readonly Route[]): Promise<Response> {
  const began = performance.now();
  const id = `req_${randomUUID().replaceAll("-", "").slice(0, 24)}`;
  const { method, path } = context.req;
  const route = routes.find((candidate) => candidate.method === (method === "HEAD" ? "GET" : method));
  const dialect = route?.dialect ?? routes[0]?.dialect ?? state.dialectOf(path);
  const running = new AbortController();
  state.running.add(running);
  const finish = (status: number) => {
    if (!state.running.delete(running)) return;
    const seen = running.signal.reason === clientGone ? 499 : status;
    state.onAnswer?.(routes[0]?.path ?? "other", seen, (performance.now() - began) / 1000);
  };
  const headers = { "x-request-id": id, ...corsHeaders(state, context.req.header("origin")) };
  try {
    checkOrigin(state, context);
    if (method === "OPTIONS") return done(new Response(null, { status: 204, headers }), finish);
    checkAccess(state, context, route, routes);
    const reply = await route!.handle(await exchangeOf(state, context, id, running));
    if (reply.kind === "stream") return await streamed(reply, { headers, dialect, running, id, finish });
    return done(whole(reply, headers), finish);
  } catch (error) {
    return done(refusal(error, dialect, id, headers), finish);
  }
}

function done(response: Response, finish: (status: number) => void): Response {
  finish(response.status);
  return response;
}

async function exchangeOf(state: State, context: Context, id: string, running: AbortController): Promise<Exchange> {
  const { raw, method } = context.req;
  const gone = () => running.abort(clientGone);
  if (raw.signal.aborted) gone();
  else raw.signal.addEventListener("abort", gone, { once: true });
  const body = method === "POST" ? await readJsonBody(raw, state) : undefined;
  return { id, body, params: context.req.param() as Record<string, string>, signal: running.signal };
}

function whole(reply: Exclude<Reply, { kind: "stream" }>, headers: Record<string, string>): Response {
  if (reply.kind === "text") return new Response(reply.text, { headers: { ...headers, "content-type": reply.type } });
  return Response.json(reply.value, { status: reply.status ?? 200, headers });
}

interface Streaming {
  headers: Record<string, string>;
  dialect: Dialect;
  running: AbortController;
  id: string;
  finish(status: number): void;
}

async function streamed(
  { type, pieces }: Extract<Reply, { kind: "stream" }>,
  { headers, dialect, running, id, finish }: Streaming,
): Promise<Response> {
  const iterator = pieces[Symbol.asyncIterator]();
  const first = await iterator.next();
  const encoder = new TextEncoder();
  let next: Promise<IteratorResult<string>> = Promise.resolve(first);
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { value, done } = await next;
        if (done) {
          finish(200);
          controller.close();
          return;
        }
        controller.enqueue(encoder.encode(value));
        next = iterator.next();
        // It is awaited by the next pull, which may be a while.
        next.catch(() => {});
      } catch (error) {
        const problem = httpProblem(error);
        finish(problem.status);
        controller.enqueue(encoder.encode(dialect.streamError(problem, id)));
        controller.close();
      }
    },
    cancel() {
      running.abort(clientGone);
      finish(499);
      void iterator.return?.();
    },
  });
  return new Response(body, { headers: { ...headers, "content-type": type, "cache-control": "no-cache" } });
}

function refusal(error: unknown, dialect: Dialect, id: string, headers: Record<string, string>): Response {
  const problem = httpProblem(error);
  const { status, retryAfterSeconds } = problem;
  const retry = retryAfterSeconds === undefined ? {} : { "retry-after": String(retryAfterSeconds) };
  // What is left of a body that was not read would be taken for the next request.
  const close = status === 413 || status === 408 || status === 503 ? { connection: "close" } : {};
  return Response.json(dialect.error(problem, id), { status, headers: { ...headers, ...retry, ...close } });
}

function checkAccess(state: State, context: Context, route: Route | undefined, routes: readonly Route[]): void {
  const { method, path } = context.req;
  if (!route?.open && !state.checkKey(givenKey(context))) {
    throw new Refusal({
      status: 401,
      where: "API key",
      expected: "authorization: Bearer KEY, or x-api-key",
      found: "none that is right",
    });
  }
  if (state.stopping) throw new Refusal({ status: 503, where: "the server is stopping", retryAfterSeconds: 5 });
  if (route) return;
  if (routes.length === 0) throw new Refusal({ status: 404, where: `${method} ${path}`, found: "no such endpoint" });
  const known = routes.map((candidate) => candidate.method).join(", ");
  throw new Refusal({ status: 405, where: path, expected: known, found: method });
}

/** Keys are compared by their digests, which takes as long for a wrong key as for a right one. */
function createKeyCheck(keys: readonly string[]): State["checkKey"] {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  const known = keys.map(digest);
  return (given) => {
    if (known.length === 0) return true;
    const found = digest(given ?? "");
    return known.map((key) => timingSafeEqual(key, found)).includes(true) && given !== undefined;
  };
}

function givenKey(context: Context): string | undefined {
  const [, bearer] = /^Bearer\s+(.+)$/i.exec(context.req.header("authorization") ?? "") ?? [];
  return bearer?.trim() ?? context.req.header("x-api-key");
}

export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

/**
 * A page in the user's browser can send requests to this machine too: one of another origin is refused unless it was
 * allowed, and on loopback so is a name that only pretends to be this machine.
 */
function checkOrigin(state: State, context: Context): void {
  const host = context.req.header("host") ?? "";
  const name = host.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1");
  // With keys such a page would need one.
  if (state.apiKeys.length === 0 && isLoopback(state.host) && !isLoopback(name)) {
    throw new Refusal({ status: 403, where: "host", expected: "localhost or 127.0.0.1", found: JSON.stringify(host) });
  }
  const origin = context.req.header("origin");
  if (origin === undefined || origin === `http://${host}` || isAllowed(state, origin)) return;
  throw new Refusal({
    status: 403,
    where: "origin",
    found: origin,
    fix: `serve with --cors ${origin} to let its pages ask`,
  });
}

const isAllowed = ({ corsOrigins }: State, origin: string) => corsOrigins.includes("*") || corsOrigins.includes(origin);

function corsHeaders(state: State, origin: string | undefined): Record<string, string> {
  if (origin === undefined || !isAllowed(state, origin)) return {};
  return {
    "access-control-allow-origin": origin,
    "access-control-allow-methods": "GET, POST, OPTIONS",
    "access-control-allow-headers": "authorization, content-type, x-api-key, anthropic-version, anthropic-beta",
    "access-control-max-age": "600",
    vary: "origin",
  };
}

const rawProblems: Readonly<Record<string, [status: number, message: string]>> = {
  ERR_HTTP_REQUEST_TIMEOUT: [408, "the headers of the request took too long"],
  HPE_HEADER_OVERFLOW: [431, "the headers of the request are too large"],
};

/** What is no HTTP, or comes too slowly to be taken for it. */
function refuseRaw(error: NodeJS.ErrnoException, socket: Socket, { dialectOf }: HttpOptions): void {
  if (!socket.writable || error.code === "ECONNRESET") {
    socket.destroy();
    return;
  }
  const [status, message] = rawProblems[error.code ?? ""] ?? [400, `this is not HTTP (${error.code ?? error.message})`];
  const problem = { status, message, param: undefined, retryAfterSeconds: undefined };
  const body = JSON.stringify(dialectOf("/").error(problem, ""));
  const head = `HTTP/1.1 ${status} Refused\r\ncontent-type: application/json\r\nconnection: close\r\n`;
  socket.end(`${head}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
}

/** @module `espalier serve`: all dialects over one pool of models. */
import { freemem, totalmem } from "node:os";
import { EspalierError, type OnEvent } from "../base/index.js";
import { type HubName, pull as pullFromHub } from "../hub/index.js";
import type { InferenceEngine, LoadOptions } from "../llamacpp/index.js";
import { anthropicDialect } from "./anthropic/dialect.js";
import { countTokens, messages } from "./anthropic/messages.js";
import { type Dialect, type HttpServer, isLoopback, type Route, startHttp } from "./http.js";
import { createModelPool, type ServedModel } from "./model-pool.js";
import { chat, generate } from "./ollama/chat.js";
import { ollamaDialect } from "./ollama/dialect.js";
import { ps, show, tags } from "./ollama/models.js";
import { type Pull, pullModel } from "./ollama/pull.js";
import { chatCompletions } from "./openai/chat.js";
import { completions } from "./openai/completions.js";
import { openaiDialect } from "./openai/dialect.js";
import { embeddings } from "./openai/embeddings.js";
import { listModels, showModel } from "./openai/models.js";
import { responses } from "./openai/responses.js";
import { createService, type Service } from "./service.js";

export interface ServerOptions {
  /** Holds the models; it stays the caller's to dispose. */
  engine: InferenceEngine;
  /** Loaded when they are first asked for. */
  models: readonly ServedModel[];
  /** How each is loaded. */
  load?: LoadOptions;
  /** Address to listen on. Defaults to 127.0.0.1. */
  host?: string;
  /** Defaults to 11434, where clients of Ollama look; 0 takes any that is free. */
  port?: number;
  /** Any of them lets a request in. Required where the host is not loopback. */
  apiKeys?: readonly string[];
  /** Origins of web pages that may ask. Defaults to none. */
  corsOrigins?: readonly string[];
  /** Bytes that the loaded models may take together. Defaults to 80 % of the machine's memory. */
  memoryBytes?: number;
  /** Milliseconds that a model stays after its last request; below 0: for ever. Defaults to 5 minutes. */
  keepAliveMs?: number;
  /** Requests of a model that may wait. Defaults to 512. */
  queue?: number;
  /** Tokens of one answer that a request may ask for. Defaults to no bound but the context. */
  maxTokens?: number;
  /** Answers to one request. Defaults to 32. */
  maxAnswers?: number;
  /** Milliseconds for one request, waiting included. Defaults to 10 minutes. */
  timeoutMs?: number;
  /** Bytes of one request. Defaults to 16 MiB. */
  maxBodyBytes?: number;
  /** Milliseconds for a request to arrive. Defaults to 30 seconds. */
  receiveTimeoutMs?: number;
  /** Version told by /api/version. */
  version?: string;
  /** Fetches for /api/pull. Defaults to the hub. */
  pull?: Pull;
  onEvent?: OnEvent;
}

export interface ModelServer extends Pick<HttpServer, "url" | "port"> {
  /** Takes no more requests, lets those that run finish for so long, and unloads the models. Defaults to 30 seconds. */
  stop(graceMs?: number): Promise<void>;
}

export async function startServer(options: ServerOptions): Promise<ModelServer> {
  const { engine, models, host = "127.0.0.1", port = 11434, apiKeys = [], queue = 512 } = options;
  if (!isLoopback(host) && apiKeys.length === 0) throw keyMissing(host);
  const pool = createModelPool({
    engine,
    models,
    queue,
    memoryBytes: options.memoryBytes ?? Math.max(freemem(), totalmem() * 0.8),
    keepAliveMs: options.keepAliveMs ?? 300_000,
    ...(options.load && { load: options.load }),
    ...(options.onEvent && { onEvent: options.onEvent }),
  });
  const { maxTokens = Number.POSITIVE_INFINITY, maxAnswers = 32, timeoutMs = 600_000 } = options;
  const service = createService(pool, { maxTokens, maxAnswers, timeoutMs });
  const http = await startHttp({
    routes: createRoutes(service, options),
    dialectOf,
    host,
    port,
    apiKeys,
    corsOrigins: options.corsOrigins ?? [],
    maxBodyBytes: options.maxBodyBytes ?? 16 << 20,
    receiveTimeoutMs: options.receiveTimeoutMs ?? 30_000,
    onAnswer: service.metrics.request,
  });
  return {
    url: http.url,
    port: http.port,
    async stop(graceMs = 30_000) {
      await http.stop(graceMs);
      await pool.dispose();
    },
  };
}

function keyMissing(host: string): EspalierError {
  return new EspalierError({
    where: `--host ${host}`,
    expected: "an API key, because others on the network can reach this address",
    found: "none",
    fix: "give --api-key KEY, or set ESPALIER_API_KEY",
    exitCode: 2,
  });
}

function dialectOf(path: string): Dialect {
  if (path.startsWith("/api")) return ollamaDialect;
  return path.startsWith("/v1/messages") ? anthropicDialect : openaiDialect;
}

function createRoutes(service: Service, { version = "0.0.0", pull = pullOne }: ServerOptions): Route[] {
  const openai = (method: Route["method"], path: string, handle: Route["handle"]): Route => ({
    method,
    path,
    dialect: openaiDialect,
    handle,
  });
  const own = (path: string, handle: Route["handle"], open = false): Route => ({
    ...openai("GET", path, handle),
    open,
  });
  const anthropic = (path: string, handle: Route["handle"]): Route => ({
    method: "POST",
    path,
    dialect: anthropicDialect,
    handle,
  });
  const ollama = (method: Route["method"], path: string, handle: Route["handle"]): Route => ({
    method,
    path,
    dialect: ollamaDialect,
    handle,
  });
  return [
    own("/health", () => ({ kind: "json", value: { status: "ok" } }), true),
    own("/metrics", () => ({
      kind: "text",
      text: service.metrics.render(service.pool),
      type: "text/plain; version=0.0.4",
    })),
    openai("GET", "/v1/models", () => listModels(service)),
    openai("GET", "/v1/models/:id{.+}", ({ params }) => showModel(service, params.id!)),
    openai("POST", "/v1/chat/completions", (exchange) => chatCompletions(service, exchange)),
    openai("POST", "/v1/completions", (exchange) => completions(service, exchange)),
    openai("POST", "/v1/embeddings", (exchange) => embeddings(service, exchange)),
    openai("POST", "/v1/responses", (exchange) => responses(service, exchange)),
    anthropic("/v1/messages", (exchange) => messages(service, exchange)),
    anthropic("/v1/messages/count_tokens", (exchange) => countTokens(service, exchange)),
    // Clients look here whether an Ollama answers.
    { ...ollama("GET", "/", () => ({ kind: "text", text: "Ollama is running", type: "text/plain" })), open: true },
    ollama("GET", "/api/version", () => ({ kind: "json", value: { version } })),
    ollama("GET", "/api/tags", () => tags(service)),
    ollama("GET", "/api/ps", () => ps(service)),
    ollama("POST", "/api/show", (exchange) => show(service, exchange)),
    ollama("POST", "/api/chat", (exchange) => chat(service, exchange)),
    ollama("POST", "/api/generate", (exchange) => generate(service, exchange)),
    ollama("POST", "/api/pull", (exchange) => pullModel(service, pull, exchange)),
  ];
}

const pullOne: Pull = (name: HubName, options) => pullFromHub(name, options);

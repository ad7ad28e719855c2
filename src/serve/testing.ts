/** @module A model for tests that answers what it is told to, token by token, and the errors that a real one seldom makes. */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { EspalierError } from "../base/index.js";
import { temporaryDirectory } from "../base/testing.js";
import type {
  Completion,
  CompletionRequest,
  InferenceEngine,
  LoadedModel,
  LoadOptions,
  ModelInfo,
  TokenLogprob,
} from "../llamacpp/index.js";
import { type ServerOptions, startServer } from "./server.js";

export interface FakeOptions {
  /** The text that the model continues a prompt with. Defaults to "Hello there." */
  answer?: (prompt: string, request: CompletionRequest) => string;
  /** Pause before each token, in milliseconds. Defaults to none. */
  tokenMs?: number;
  /** Fails after so many tokens, as when the process of the model ends. */
  crashAfter?: () => number | undefined;
  info?: Partial<ModelInfo>;
}

export interface FakeEngine extends InferenceEngine {
  /** What the models were asked, in order. */
  requests: (CompletionRequest & { prompt: readonly number[]; text: string })[];
  loads: { gguf: string; options: LoadOptions }[];
  unloads: string[];
}

const special = ["<|im_start|>", "<|im_end|>", "<s>"];

/** ChatML with its own part for tools. */
export const fakeTemplate = `{% if tools %}<|im_start|>system
Tools: {{ tools | tojson }}<|im_end|>
{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}{% for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}{{ extra or "" }}`;

/** Tokens are bytes, and three special ones. */
export function fakeTokenize(text: string, asSpecial = false): number[] {
  const parts = asSpecial ? text.split(/(<\|im_start\|>|<\|im_end\|>|<s>)/) : [text];
  return parts.flatMap((part) => {
    const index = asSpecial ? special.indexOf(part) : -1;
    return index >= 0 ? [256 + index] : [...Buffer.from(part)];
  });
}

export function fakeDetokenize(ids: readonly number[], asSpecial = false): string {
  const bytes = ids.flatMap((id) => (id < 256 ? [id] : asSpecial ? [...Buffer.from(special[id - 256]!)] : []));
  return Buffer.from(bytes).toString();
}

export function createFakeEngine(options: FakeOptions = {}): FakeEngine {
  const engine: FakeEngine = {
    requests: [],
    loads: [],
    unloads: [],
    async loadModel(gguf, load = {}) {
      engine.loads.push({ gguf, options: load });
      return createFakeModel(gguf, engine, options, load);
    },
    async dispose() {},
  };
  return engine;
}

function createFakeModel(gguf: string, engine: FakeEngine, options: FakeOptions, load: LoadOptions): LoadedModel {
  const info: ModelInfo = {
    gguf,
    bytes: 1000,
    memoryBytes: 2000,
    architecture: "llama",
    name: "Fake",
    parameters: 1_500_000,
    fileType: "Q8_0",
    contextSize: load.contextSize ?? 2048,
    trainContextSize: 4096,
    sequences: load.sequences ?? 4,
    embeddingLength: 4,
    vocabSize: 259,
    chatTemplate: fakeTemplate,
    bosToken: "<s>",
    eosToken: "<|im_end|>",
    endIds: [257],
    addBos: true,
    ...options.info,
  };
  let running = 0;
  return {
    info,
    load: () => ({ running: Math.min(running, info.sequences), waiting: Math.max(0, running - info.sequences) }),
    tokenize: async (text, { special = false } = {}) => fakeTokenize(text, special),
    detokenize: async (ids, { special = false } = {}) => fakeDetokenize(ids, special),
    async complete(request) {
      const text = fakeDetokenize(request.prompt, true);
      engine.requests.push({ ...request, text });
      running++;
      try {
        return await run(options, text, request);
      } finally {
        running--;
      }
    },
    async embed(ids) {
      const sum = ids.reduce((a, b) => a + b, 0);
      const vector = Float32Array.from([sum, ids.length, 1, 0]);
      return vector.map((value) => value / Math.hypot(...vector));
    },
    async unload() {
      engine.unloads.push(gguf);
    },
  };
}

async function run(options: FakeOptions, prompt: string, request: CompletionRequest): Promise<Completion> {
  const answer = options.answer?.(prompt, request) ?? "Hello there.";
  const { text, stopText } = cutAtStop(answer, request.stop ?? []);
  const characters = [...text];
  const ids: number[] = [];
  const tokens: TokenLogprob[] = [];
  let finish: Completion["finish"] = "stop";
  for (const [i, character] of characters.entries()) {
    await (options.tokenMs ? sleep(options.tokenMs) : Promise.resolve());
    if (request.signal?.aborted) finish = "aborted";
    else if (i >= request.maxTokens) finish = "length";
    if (finish !== "stop") break;
    if (options.crashAfter?.() === i) throw new EspalierError({ where: "fake.gguf", found: "the end of its process" });
    const token = describe(character, request.logprobs);
    ids.push(...fakeTokenize(character));
    tokens.push(token);
    request.onText?.(character, [token]);
  }
  const { prompt: ids0, promptLogprobs } = request;
  return {
    text: tokens.map((token) => token.text).join(""),
    ids,
    tokens,
    ...(promptLogprobs !== undefined && {
      promptTokens: ids0.map((id, i) => ({
        ...describe(fakeDetokenize([id], true), i === 0 ? undefined : promptLogprobs),
        id,
      })),
    }),
    finish,
    ...(finish === "stop" && stopText !== undefined && { stopText }),
    timings: {
      promptTokens: ids0.length - 1,
      cachedTokens: 1,
      queueMs: 1,
      promptMs: 10,
      firstTokenMs: 12,
      generatedTokens: tokens.length,
      generateMs: 20,
    },
  };
}

function describe(text: string, top: number | undefined): TokenLogprob {
  const id = fakeTokenize(text, true)[0]!;
  if (top === undefined) return { id, text };
  const others = Array.from({ length: top }, (_, i) => ({ id: i, text: i === 0 ? text : `t${i}`, logprob: -0.5 - i }));
  return { id, text, logprob: -0.5, top: others };
}

function cutAtStop(text: string, stop: readonly string[]): { text: string; stopText?: string } {
  const [first] = stop
    .map((stopText) => ({ stopText, at: text.indexOf(stopText) }))
    .filter(({ at }) => at >= 0)
    .sort((a, b) => a.at - b.at);
  return first ? { text: text.slice(0, first.at), stopText: first.stopText } : { text };
}

export interface TestServer {
  url: string;
  engine: FakeEngine;
  get(path: string, headers?: Record<string, string>): Promise<TestReply>;
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<TestReply>;
  stop(graceMs?: number): Promise<void>;
}

export interface TestReply {
  status: number;
  headers: Headers;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape.
  json: any;
  // biome-ignore lint/suspicious/noExplicitAny: the same.
  events: any[];
}

/** A server in this process, on a free port, with the models "fake" and "other". */
export async function startTestServer(
  fake: FakeOptions = {},
  options: Partial<ServerOptions> = {},
): Promise<TestServer> {
  const engine = createFakeEngine(fake);
  const directory = temporaryDirectory();
  const models = ["fake", "other"].map((name) => ({ name, gguf: join(directory, `${name}.gguf`) }));
  for (const { gguf } of models) writeFileSync(gguf, Buffer.alloc(1000));
  const server = await startServer({ engine, models, port: 0, memoryBytes: 1e6, ...options });
  const send = async (path: string, init: RequestInit): Promise<TestReply> => {
    const response = await fetch(server.url + path, init);
    const text = await response.text();
    return { status: response.status, headers: response.headers, text, json: parsed(text), events: eventsOf(text) };
  };
  return {
    url: server.url,
    engine,
    get: (path, headers = {}) => send(path, { headers }),
    post: (path, body, headers = {}) => {
      const text = typeof body === "string" ? body : JSON.stringify(body);
      return send(path, { method: "POST", body: text, headers: { "content-type": "application/json", ...headers } });
    },
    stop: (graceMs) => server.stop(graceMs),
  };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Of server-sent events, or of lines of JSON. */
function eventsOf(text: string): unknown[] {
  const lines = text.split("\n").map((line) => line.replace(/^data: /, ""));
  return lines.map(parsed).filter((value) => value !== undefined);
}

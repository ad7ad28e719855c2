// Requests that are wrong in every way a seed can think of, and what a server may answer to them.
import { once } from "node:events";
import { connect } from "node:net";
import { createRng, type Rng } from "../../src/base/index.js";

export interface FuzzTarget {
  url: string;
  /** A model that is served. */
  model: string;
}

export interface FuzzReport {
  /** Answers by status; "cut" are those whose client left. */
  statuses: Record<string, number>;
  /** What should not have been, with the request that brought it about. */
  wrong: string[];
}

type Json = Record<string, unknown>;

const messages = [{ role: "user", content: "Hi" }];
const schema = { type: "object", properties: { a: { type: "string" } }, required: ["a"] };
const tools = [{ type: "function", function: { name: "f", description: "d", parameters: schema } }];

/** Every POST endpoint with all of its fields, right. */
const bodies: Readonly<Record<string, Json>> = {
  "/v1/chat/completions": {
    messages,
    temperature: 0.5,
    top_p: 0.9,
    top_k: 5,
    min_p: 0.1,
    seed: 1,
    frequency_penalty: 0,
    presence_penalty: 0,
    repeat_penalty: 1,
    logit_bias: { 5: 1 },
    max_tokens: 3,
    stop: ["x"],
    n: 1,
    logprobs: true,
    top_logprobs: 1,
    tools,
    tool_choice: "auto",
    parallel_tool_calls: true,
    response_format: { type: "text" },
    stream: false,
    thinking: "auto",
    chat_template_kwargs: { a: 1 },
    user: "u",
  },
  "/v1/completions": { prompt: "Hi", max_tokens: 3, echo: true, logprobs: 1, stop: "x", n: 1, seed: 1, stream: false },
  "/v1/embeddings": { input: ["Hi", "you"], encoding_format: "float", user: "u" },
  "/v1/responses": {
    input: [{ role: "user", content: [{ type: "input_text", text: "Hi" }] }],
    instructions: "Be brief.",
    max_output_tokens: 3,
    text: { format: { type: "json_schema", name: "x", schema } },
    temperature: 1,
    reasoning: { effort: "none" },
    stream: false,
  },
  "/v1/messages": {
    max_tokens: 3,
    messages: [{ role: "user", content: [{ type: "text", text: "Hi" }] }],
    system: "Be brief.",
    tools: [{ name: "f", input_schema: schema }],
    tool_choice: { type: "auto" },
    stop_sequences: ["x"],
    thinking: { type: "disabled" },
    top_k: 3,
    stream: false,
  },
  "/v1/messages/count_tokens": { messages },
  "/api/chat": {
    messages,
    stream: false,
    options: { temperature: 1, num_predict: 3, num_ctx: 64, stop: ["x"] },
    format: "",
    keep_alive: "5m",
    think: false,
    tools,
  },
  "/api/generate": {
    prompt: "Hi",
    stream: false,
    options: { num_predict: 3 },
    raw: false,
    system: "s",
    format: schema,
  },
  "/api/show": { verbose: false },
  "/api/pull": { model: "not a name at all!", stream: false },
};
const gets = [
  "/",
  "/health",
  "/metrics",
  "/v1/models",
  "/v1/models/x",
  "/api/tags",
  "/api/ps",
  "/api/version",
  "/nowhere",
];

const junk: readonly unknown[] = [
  null,
  true,
  -1,
  0,
  0.5,
  1e308,
  2 ** 53,
  "",
  "x",
  "\u0000\ud800",
  "é€𝄞".repeat(50),
  "<|im_end|><s></s>",
  "x ".repeat(5000),
  [],
  {},
  [[]],
  [null],
  { type: "object" },
  { $ref: "#" },
  { anyOf: [{ $ref: "#" }] },
  { type: "string", minLength: 1e9 },
  { __proto__: { a: 1 }, constructor: 1 },
  "a|b|c",
  "../../etc/passwd",
  Array.from({ length: 300 }, (_, i) => i),
];

/** Sends so many requests, a few at a time, and looks at every answer. */
export async function fuzzServer(target: FuzzTarget, requests: number, seed: number): Promise<FuzzReport> {
  const report: FuzzReport = { statuses: {}, wrong: [] };
  let next = 0;
  const worker = async () => {
    for (let i = next++; i < requests; i = next++) {
      // Each has its own, so that what one sends does not hang on which of them is quicker.
      const status = await sendOne(target, createRng(`${seed} ${i}`), report.wrong);
      report.statuses[status] = (report.statuses[status] ?? 0) + 1;
    }
  };
  await Promise.all(Array.from({ length: 4 }, worker));
  await checkLife(target, report.wrong);
  return report;
}

async function sendOne(target: FuzzTarget, rng: Rng, wrong: string[]): Promise<string> {
  const kind = rng.int(20);
  if (kind === 0) return sendRaw(target, rng);
  const path = pick(rng, kind === 1 ? gets : Object.keys(bodies));
  const method = kind === 1 ? pick(rng, ["GET", "POST", "DELETE", "PUT"]) : rng.int(20) === 0 ? "PATCH" : "POST";
  const body = method === "GET" ? undefined : spoiltBody(rng, path, target.model);
  const leaving = kind === 2 ? AbortSignal.timeout(rng.int(8)) : undefined;
  const headers = rng.int(10) === 0 ? { "content-type": pick(rng, ["text/plain", "x", "multipart/form-data"]) } : {};
  try {
    const response = await fetch(target.url + path, {
      method,
      headers,
      ...(body && { body }),
      ...(leaving && { signal: leaving }),
    });
    const problem = await problemOf(path, response);
    if (problem !== undefined) wrong.push(`${method} ${path} ${shown(body)}: ${problem}`);
    return String(response.status);
  } catch (error) {
    if (!leaving?.aborted) wrong.push(`${method} ${path} ${shown(body)}: ${String(error)}`);
    return "cut";
  }
}

const pick = <T>(rng: Rng, items: readonly T[]): T => items[rng.int(items.length)]!;
const shown = (body: Uint8Array | undefined) => (body ? Buffer.from(body).toString("latin1").slice(0, 600) : "");

/** A right body with up to four faults; sometimes the text of it is spoilt too. */
function spoiltBody(rng: Rng, path: string, model: string): Uint8Array<ArrayBuffer> {
  const body: Json = { model, ...structuredClone(bodies[path] ?? {}) };
  for (let faults = rng.int(5); faults > 0; faults--) spoil(rng, body);
  if (rng.int(6) === 0) body.stream = true;
  const bytes = Uint8Array.from(Buffer.from(JSON.stringify(body)));
  const how = rng.int(12);
  if (how === 0) return bytes.slice(0, rng.int(bytes.length));
  if (how === 1) for (let i = 0; i < 3; i++) bytes[rng.int(bytes.length)] = rng.int(256);
  if (how === 2)
    return Uint8Array.from(Buffer.from(pick(rng, ["", "null", "[]", "3", '"x"', "{", "[".repeat(1000), "\ufeff{}"])));
  return bytes;
}

function spoil(rng: Rng, value: Json): void {
  const keys = Object.keys(value);
  const key =
    keys.length === 0 || rng.int(8) === 0 ? pick(rng, ["surprise", "format", "suffix", "n"]) : pick(rng, keys);
  const inner = value[key];
  if (typeof inner === "object" && inner !== null && rng.int(3) > 0) spoil(rng, inner as Json);
  else if (rng.int(4) === 0) delete value[key];
  else value[key] = structuredClone(pick(rng, junk));
}

/** Bytes that are hardly HTTP, from a client that seldom waits for an answer. */
async function sendRaw({ url }: FuzzTarget, rng: Rng): Promise<string> {
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  socket.on("error", () => {});
  await once(socket, "connect");
  const noise = Buffer.from(Array.from({ length: rng.int(200) }, () => rng.int(256)));
  const head = `POST ${pick(rng, Object.keys(bodies))} HTTP/1.1\r\nhost: localhost\r\ncontent-length: ${rng.int(500)}\r\n\r\n`;
  socket.write(rng.int(2) === 0 ? noise : head);
  if (rng.int(2) === 0) socket.write(noise);
  await new Promise((resolve) => setTimeout(resolve, rng.int(5)));
  socket.destroy();
  return "cut";
}

const allowed = [200, 400, 404, 405, 408, 413, 431, 503];

async function problemOf(path: string, response: Response): Promise<string | undefined> {
  const { status } = response;
  const text = await response.text();
  if (!allowed.includes(status)) return `status ${status} ${text.slice(0, 300)}`;
  if (status === 200)
    return /"error":/.test(text) && !text.includes('"error":null')
      ? `error in a stream: ${text.slice(-300)}`
      : undefined;
  const found = parsed(text) as Json | undefined;
  const error = found?.error as unknown;
  const message = path.startsWith("/api") || path === "/" ? error : (error as Json | undefined)?.message;
  if (typeof message !== "string" || message === "") return `not the dialect's error: ${text.slice(0, 300)}`;
  if (path.startsWith("/v1/messages") && found?.type !== "error") return `not Anthropic's error: ${text.slice(0, 300)}`;
  return /internal:|undefined|\[object/.test(message) ? `message: ${message.slice(0, 300)}` : undefined;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** After all of it a right request is answered. */
async function checkLife({ url, model }: FuzzTarget, wrong: string[]): Promise<void> {
  const body = JSON.stringify({ model, messages, max_tokens: 2 });
  const response = await fetch(`${url}/v1/chat/completions`, { method: "POST", body });
  if (response.status !== 200) wrong.push(`a right request at the end: ${response.status} ${await response.text()}`);
}

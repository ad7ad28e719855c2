import { once } from "node:events";
import { connect } from "node:net";
import { afterAll, describe, expect, test } from "vitest";
import { startTestServer } from "./testing.js";

const server = await startTestServer({}, { maxBodyBytes: 100_000, receiveTimeoutMs: 300 });
afterAll(() => server.stop());

const chat = { model: "fake", messages: [{ role: "user", content: "Hi" }] };
const port = Number(new URL(server.url).port);

/** What a server answers to these bytes, until it closes the connection. */
async function raw(...parts: (string | Uint8Array)[]): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  let received = "";
  socket.on("data", (data) => (received += data));
  await once(socket, "connect");
  for (const part of parts) socket.write(part);
  await once(socket, "close");
  return received;
}

const head = (path: string, length: number, more = "") =>
  `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n${more}\r\n`;

describe("bodies", () => {
  const cases: [name: string, body: string, message: string][] = [
    ["nothing", "", "body: expected a JSON object, found nothing"],
    ["a list", "[1]", "body: expected a JSON object, found a list"],
    ["a number", "3", "body: expected a JSON object, found 3"],
    ["no JSON", "{", "body: expected JSON"],
    ["nesting without end", `{"a":${"[".repeat(200)}`, "body: expected JSON of at most 128 levels"],
  ];
  test.each(cases)("%s", async (_, body, message) => {
    for (const path of ["/v1/chat/completions", "/v1/messages", "/api/chat"]) {
      const { status, text } = await server.post(path, body);
      expect(status).toBe(400);
      expect(text).toContain(message);
    }
  });

  test("invalid UTF-8", async () => {
    const bytes = Buffer.from('{"model":"\xff"}', "latin1");
    const answer = await raw(head("/v1/chat/completions", bytes.length, "connection: close\r\n"), bytes);
    expect(answer).toContain("400 Bad Request");
    expect(answer).toContain("body: expected UTF-8");
  });

  test("a hundred megabytes get 413 in each dialect's words, and the server lives", async () => {
    const patient = await startTestServer({}, { maxBodyBytes: 100_000 });
    const body = Buffer.alloc(100 << 20, 32);
    const send = (path: string) =>
      fetch(patient.url + path, { method: "POST", body }).then(async (r) => [r.status, await r.json()]);
    expect(await send("/v1/chat/completions")).toMatchObject([413, { error: { type: "invalid_request_error" } }]);
    expect(await send("/v1/messages")).toMatchObject([413, { error: { type: "request_too_large" } }]);
    expect(await send("/api/chat")).toEqual([413, { error: expect.stringContaining("at most 100000 bytes") }]);
    expect((await patient.get("/health")).json).toEqual({ status: "ok" });
    await patient.stop();
  });

  test("half a body is waited for, then 408", async () => {
    const answer = await raw(head("/v1/chat/completions", 100), '{"model":');
    expect(answer).toContain("408 Request Timeout");
    expect(answer).toContain("body: expected its end within 0.3 s");
  });

  test("half a head too", async () => {
    const answer = await raw("POST /v1/chat/completions HTTP/1.1\r\nhost: localh");
    expect(answer).toMatch(/^HTTP\/1.1 408 /);
    expect(answer).toContain('"message":"the headers of the request took too long"');
  });

  test("what is no HTTP gets 400", async () => {
    expect(await raw("hello\r\n\r\n")).toMatch(/^HTTP\/1.1 400 /);
  });

  test("a client that leaves in the middle of its body hurts nobody", async () => {
    const socket = connect(port, "127.0.0.1");
    await once(socket, "connect");
    socket.write(head("/v1/chat/completions", 100));
    socket.destroy();
    expect((await server.get("/health")).status).toBe(200);
  });
});

test("addresses and methods that nobody has", async () => {
  expect((await server.get("/v1/nothing")).json.error).toMatchObject({
    message: "GET /v1/nothing: found no such endpoint",
  });
  const { status, json } = await server.get("/v1/chat/completions");
  expect([status, json.error.message]).toEqual([405, "/v1/chat/completions: expected POST, found GET"]);
  expect((await server.get("/v1/messages/x")).json.type).toBe("error");
});

test("models are listed, and shown by name", async () => {
  const { json } = await server.get("/v1/models");
  expect(json.data.map(({ id }: { id: string }) => id)).toEqual(["fake", "other"]);
  expect((await server.get("/v1/models/other")).json).toMatchObject({
    id: "other",
    object: "model",
    owned_by: "espalier",
  });
  expect((await server.get("/v1/models/fake|other")).json.id).toBe("fake|other");
  expect((await server.get("/v1/models/nobody")).json.error.code).toBe("model_not_found");
});

test("metrics count requests and tokens", async () => {
  await server.post("/v1/chat/completions", chat);
  const { text, headers } = await server.get("/metrics");
  expect(headers.get("content-type")).toContain("text/plain; version=0.0.4");
  expect(text).toMatch(/espalier_requests_total\{route="\/v1\/chat\/completions",status="200"\} \d/);
  expect(text).toContain('espalier_tokens_total{model="fake",kind="generated"} 12');
  expect(text).toMatch(/espalier_first_token_seconds_bucket\{le="0.05"\} [1-9]/);
  expect(text).toContain('espalier_model_bytes{model="fake"} 2000');
  expect(text).toMatch(/process_resident_memory_bytes \d{7,}/);
});

describe("pages of other origins", () => {
  test("are refused, and get no headers, unless they are allowed", async () => {
    const { status, headers } = await server.post("/v1/chat/completions", chat, { origin: "https://evil.example" });
    expect([status, headers.get("access-control-allow-origin")]).toEqual([403, null]);
    const open = await startTestServer({}, { corsOrigins: ["https://good.example"] });
    const allowed = await open.post("/v1/chat/completions", chat, { origin: "https://good.example" });
    expect([allowed.status, allowed.headers.get("access-control-allow-origin")]).toEqual([200, "https://good.example"]);
    const preflight = await fetch(`${open.url}/v1/chat/completions`, {
      method: "OPTIONS",
      headers: { origin: "https://good.example" },
    });
    expect([preflight.status, preflight.headers.get("access-control-allow-methods")]).toEqual([
      204,
      "GET, POST, OPTIONS",
    ]);
    await open.stop();
  });

  test("cannot come under another name of this machine", async () => {
    const answer = await raw("GET /v1/models HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
    expect(answer).toContain("403 Forbidden");
  });
});

describe("keys", () => {
  test("let in, as bearer or x-api-key; health needs none", async () => {
    const locked = await startTestServer({}, { apiKeys: ["first", "second"] });
    const statuses = async (headers: Record<string, string>) =>
      (await locked.post("/v1/chat/completions", chat, headers)).status;
    expect(await statuses({})).toBe(401);
    expect(await statuses({ authorization: "Bearer wrong" })).toBe(401);
    expect(await statuses({ authorization: "Bearer first" })).toBe(200);
    expect(await statuses({ "x-api-key": "second" })).toBe(200);
    expect((await locked.post("/v1/messages", chat)).json.error.type).toBe("authentication_error");
    expect((await locked.get("/metrics")).status).toBe(401);
    expect((await locked.get("/health")).status).toBe(200);
    await locked.stop();
  });

  test("are required where others can reach the server", async () => {
    await expect(startTestServer({}, { host: "0.0.0.0" })).rejects.toThrow("--host 0.0.0.0: expected an API key");
    const open = await startTestServer({}, { host: "0.0.0.0", apiKeys: ["k"] });
    await open.stop();
  });
});

describe("requests that are too many, too long, or left", () => {
  test("over the cap are 503 with Retry-After; the others are answered", async () => {
    const small = await startTestServer({ tokenMs: 5 }, { queue: 1, load: { sequences: 1 } });
    const replies = await Promise.all(Array.from({ length: 4 }, () => small.post("/v1/chat/completions", chat)));
    expect(replies.map(({ status }) => status).sort()).toEqual([200, 200, 503, 503]);
    const refused = replies.find(({ status }) => status === 503)!;
    expect(refused.headers.get("retry-after")).toBe("1");
    expect(refused.json.error.message).toContain("at most 1 requests waiting beside 1 running");
    expect((await small.post("/v1/chat/completions", chat)).status).toBe(200);
    await small.stop();
  });

  test("past their time are 504, in a stream an event", async () => {
    const slow = await startTestServer({ tokenMs: 20 }, { timeoutMs: 60 });
    const whole = await slow.post("/v1/chat/completions", chat);
    expect([whole.status, whole.json.error.code]).toEqual([504, "timeout"]);
    const { status, events } = await slow.post("/v1/chat/completions", { ...chat, stream: true });
    expect(status).toBe(200);
    expect(events.at(-1).error.message).toContain("the request took longer than 0.06 s");
    await slow.stop();
  });

  test("more tokens than one answer may have are refused by number", async () => {
    const capped = await startTestServer({}, { maxTokens: 5 });
    const over = await capped.post("/v1/chat/completions", { ...chat, max_tokens: 6 });
    expect(over.json.error).toMatchObject({
      param: "max_tokens",
      message: expect.stringContaining("expected at most 5, found 6"),
    });
    expect((await capped.post("/v1/chat/completions", chat)).json.choices[0].finish_reason).toBe("length");
    await capped.stop();
  });

  test.each([true, false])("when the client leaves, its completion ends (stream: %s)", async (stream) => {
    const slow = await startTestServer({ tokenMs: 10, answer: () => "x".repeat(1000) });
    const leaving = new AbortController();
    const gone = fetch(`${slow.url}/v1/chat/completions`, {
      method: "POST",
      body: JSON.stringify({ ...chat, stream }),
      signal: leaving.signal,
    }).then((response) => response.text());
    await expect.poll(() => slow.engine.requests.length).toBe(1);
    leaving.abort();
    await expect(gone).rejects.toThrow();
    await expect.poll(() => slow.engine.requests[0]!.signal!.aborted).toBe(true);
    await expect
      .poll(async () => (await slow.get("/metrics")).text)
      .toMatch(/status="499"\} 1[\s\S]*espalier_running\{model="fake"\} 0/);
    await slow.stop();
  });
});

describe("a model whose process ends", () => {
  test("costs its requests an error each, and nothing else", async () => {
    let crash: number | undefined = 3;
    const frail = await startTestServer({ crashAfter: () => crash });
    const whole = await frail.post("/v1/chat/completions", chat);
    expect([whole.status, whole.json.error]).toMatchObject([
      500,
      { type: "server_error", message: "fake.gguf: found the end of its process" },
    ]);
    const stream = await frail.post("/v1/chat/completions", { ...chat, stream: true });
    expect(stream.events.at(-1).error.message).toContain("the end of its process");
    expect((await frail.post("/v1/messages", { ...chat, max_tokens: 9 })).json.error.type).toBe("api_error");
    expect((await frail.post("/api/chat", { ...chat })).events.at(-1).error).toContain("the end of its process");
    crash = undefined;
    expect((await frail.post("/v1/chat/completions", chat)).status).toBe(200);
    await frail.stop();
  });
});

describe("stopping", () => {
  test("lets what runs finish and takes nothing more", async () => {
    const stopping = await startTestServer({ tokenMs: 10 });
    const running = stopping.post("/v1/chat/completions", chat);
    await expect.poll(() => stopping.engine.requests.length).toBe(1);
    const stopped = stopping.stop();
    expect((await running).json.choices[0].message.content).toBe("Hello there.");
    await stopped;
    await expect(stopping.get("/health")).rejects.toThrow();
    expect(stopping.engine.unloads).toHaveLength(1);
  });

  test("cuts what takes longer than it was given", async () => {
    const stopping = await startTestServer({ tokenMs: 10, answer: () => "x".repeat(1000) });
    const running = stopping.post("/v1/chat/completions", chat);
    await expect.poll(() => stopping.engine.requests.length).toBe(1);
    const stopped = stopping.stop(20);
    expect([(await running).status, (await running).json.error.message]).toEqual([503, "the server is stopping"]);
    await stopped;
  });
});

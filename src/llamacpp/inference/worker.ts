/** @module The process of one model: it loads it once, then serves requests in shared batches until its parent is gone. */
import { EspalierError } from "../../base/index.js";
import { endWithParent, explain, startLlama } from "../start.js";
import { createDrafter } from "./drafter.js";
import { checkIds, describeModel, detokenize, type HeldModel, holdModel, memoryOf, tokenize } from "./held-model.js";
import type { Call, Calls, FromWorker, LoadParams, Piece, ToWorker } from "./protocol.js";
import { createScheduler, type Job, type Scheduler } from "./scheduler.js";

const send = (message: FromWorker) => void process.send?.(message);

let loaded: { held: HeldModel; scheduler: Scheduler } | undefined;
const jobs = new Map<number, Job>();

async function load(params: LoadParams, id: number): Promise<Calls["load"]["result"]> {
  const llama = await startLlama(params.gpu ?? false);
  // The draft is the smaller part of what is read.
  const progress = (share: number) => send({ kind: "progress", id, share });
  const held = await holdModel(llama, params, progress);
  const draft =
    params.draft === undefined
      ? undefined
      : await holdModel(llama, { ...params, gguf: params.draft, contextSize: held.contextSize }, () => {});
  const drafter = draft && createDrafter(held, draft);
  loaded = { held, scheduler: createScheduler(held, drafter) };
  return describeModel(held, draft ? memoryOf(draft) : 0);
}

function current(): { held: HeldModel; scheduler: Scheduler } {
  if (!loaded) throw new Error("internal: nothing is loaded");
  return loaded;
}

/** Pieces of one step go together; the event loop turns once before they do. */
const outbox = new Map<number, Piece>();

function post(id: number, { text, tokens }: Omit<Piece, "id">): void {
  const held = outbox.get(id);
  if (held) {
    held.text += text;
    held.tokens.push(...tokens);
  } else outbox.set(id, { id, text, tokens });
  if (outbox.size === 1 && !held) setImmediate(flush);
}

function flush(): void {
  if (outbox.size === 0) return;
  send({ kind: "pieces", pieces: [...outbox.values()] });
  outbox.clear();
}

async function complete(request: Calls["complete"]["params"], id: number): Promise<Calls["complete"]["result"]> {
  const job: Job = request.stream ? { onPiece: (piece) => post(id, piece) } : {};
  jobs.set(id, job);
  try {
    return await current().scheduler.complete(request, job);
  } finally {
    jobs.delete(id);
    flush();
  }
}

async function embed(ids: readonly number[]): Promise<Float32Array> {
  const { held, scheduler } = current();
  checkIds(held, ids, "text to embed");
  if (ids.length === 0 || ids.length > held.contextSize) {
    throw new EspalierError({
      where: held.gguf,
      expected: `from 1 to ${held.contextSize} tokens to embed`,
      found: `${ids.length}`,
      exitCode: 2,
    });
  }
  return scheduler.between(async () => {
    const { ctx } = await held.embeddings();
    ctx.disposeSequence(0);
    ctx.initBatch(ids.length);
    ctx.addToBatch(0, 0, Uint32Array.from(ids), Uint32Array.from(ids.keys()));
    await ctx.decodeBatch();
    const vector = ctx.getEmbedding(ids.length);
    const norm = Math.hypot(...vector) || 1;
    return Float32Array.from(vector, (value) => value / norm);
  });
}

function answer(call: Call): Promise<unknown> | unknown {
  switch (call.method) {
    case "load":
      return load(call.params, call.id);
    case "tokenize":
      return tokenize(current().held, call.params.text, call.params.special);
    case "detokenize":
      checkIds(current().held, call.params.ids, "ids");
      return detokenize(current().held, call.params.ids, call.params.special);
    case "complete":
      return complete(call.params, call.id);
    case "embed":
      return embed(call.params.ids);
  }
}

async function serve(call: Call): Promise<void> {
  try {
    send({ kind: "done", id: call.id, result: await answer(call) });
  } catch (error) {
    send({ kind: "error", id: call.id, problem: problemOf(error) });
  }
}

function problemOf(error: unknown): Extract<FromWorker, { kind: "error" }>["problem"] {
  if (!(error instanceof EspalierError)) return { where: "", found: explain(error) };
  const { where, expected, found, fix, exitCode } = error;
  return { where, exitCode, ...(expected && { expected }), ...(found && { found }), ...(fix && { fix }) };
}

process.on("message", (message: ToWorker) => {
  if (message.method === "abort") jobs.get(message.id)?.abort?.();
  else void serve(message);
});
endWithParent();

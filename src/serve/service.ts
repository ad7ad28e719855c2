/** @module The one way from a dialect to a model: leased, within its limits, counted, and given back. */
import { merge } from "./channel.js";
import { prepareChat } from "./chat.js";
import type { ChatEvent, ChatRequest } from "./chat-request.js";
import { createMetrics, type Metrics } from "./metrics.js";
import type { Lease, ModelPool } from "./model-pool.js";
import { invalid, Refusal, unsupported } from "./refusal.js";

export interface Limits {
  /** Tokens of one answer that a request may ask for, and the most that one without a number gets. */
  maxTokens: number;
  /** Milliseconds from request to the end of its answer, waiting included. */
  timeoutMs: number;
  /** Answers of one request: `n`, or prompts x `n`. */
  maxAnswers: number;
}

/** Who asks. */
export interface Caller {
  /** Aborted when the client is gone. */
  signal: AbortSignal;
  keepAliveMs?: number | undefined;
}

export interface Service {
  readonly pool: ModelPool;
  readonly metrics: Metrics;
  readonly limits: Limits;
  chat(model: string, request: ChatRequest, caller: Caller): AsyncIterable<ChatEvent>;
  /** For what is no chat; `places` is how many completions the work runs at once. */
  withModel<T>(model: string, caller: Caller, places: number, work: (use: Use) => AsyncIterable<T>): AsyncIterable<T>;
}

export interface Use extends Lease {
  signal: AbortSignal;
}

export function createService(pool: ModelPool, limits: Limits): Service {
  const metrics = createMetrics();

  async function* leased<T>(
    names: readonly string[],
    caller: Caller,
    places: number,
    work: (uses: Use[]) => AsyncIterable<T>,
  ): AsyncIterable<T> {
    const limit = createLimit(caller.signal, limits.timeoutMs);
    const { signal } = limit;
    let leases: Lease[] = [];
    try {
      leases = await pool.lease(names, { signal, keepAliveMs: caller.keepAliveMs, places });
      yield* work(leases.map((lease) => ({ ...lease, signal })));
    } finally {
      limit.end();
      for (const lease of leases) lease.release();
    }
  }

  async function* answerAll(uses: readonly Use[], request: ChatRequest): AsyncIterable<ChatEvent> {
    const prepared = await Promise.all(uses.map(({ name, model }) => prepareChat(name, model, request)));
    const models = prepared.map(({ started }) => started);
    yield { kind: "start", models };
    for await (const event of merge(prepared.map(({ answer }, i) => answer(i, uses[i]!.signal)))) {
      if (event.kind === "end") metrics.answer((models[event.choice] ?? models[0]!).name, event.timings);
      yield event;
    }
  }

  return {
    pool,
    metrics,
    limits,
    chat(model, request, caller) {
      const names = pool.resolve(model);
      const choices = checkAnswers(request.choices ?? 1, "n", limits);
      if (names.length > 1 && choices > 1) throw unsupported("n", "several answers of each model in a comparison");
      const limited = { ...request, maxTokens: checkMaxTokens(request.maxTokens, limits) };
      return leased(names, caller, choices, (uses) => answerAll(uses, limited));
    },
    withModel(model, caller, places, work) {
      const names = pool.resolve(model);
      if (names.length > 1) throw unsupported("model", "a comparison here", "it answers chats");
      return leased(names, caller, places, ([use]) => work(use!));
    },
  };
}

export function checkMaxTokens(asked: number | undefined, { maxTokens }: Limits): number {
  if (asked === undefined || asked <= maxTokens) return asked ?? maxTokens;
  throw invalid("max_tokens", `at most ${maxTokens}`, String(asked), "serve with a larger --max-tokens");
}

export function checkAnswers(asked: number, param: string, { maxAnswers }: Limits): number {
  if (asked <= maxAnswers) return asked;
  throw invalid(param, `at most ${maxAnswers} answers`, String(asked));
}

/** One signal for everything that ends a request: its client, its time, its own end. */
function createLimit(client: AbortSignal, timeoutMs: number) {
  const own = new AbortController();
  const timer = setTimeout(() => {
    const where = `the request took longer than ${timeoutMs / 1000} s`;
    own.abort(new Refusal({ status: 504, where, fix: "ask for fewer tokens, or serve with a longer --timeout" }));
  }, timeoutMs);
  const gone = () => own.abort(client.reason);
  if (client.aborted) gone();
  else client.addEventListener("abort", gone, { once: true });
  return {
    signal: own.signal,
    end() {
      clearTimeout(timer);
      client.removeEventListener("abort", gone);
      own.abort(new Error("the request is over"));
    },
  };
}

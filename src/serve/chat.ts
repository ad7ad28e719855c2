/** @module One conversation answered by one loaded model: rendered, generated, and told apart into thought, text and calls. */
import { createHash } from "node:crypto";
import type { CompletionRequest, CompletionTimings, LoadedModel, Sampling, TokenLogprob } from "../llamacpp/index.js";
import { createChannel, merge } from "./channel.js";
import type { ChatEnd, ChatEvent, ChatRequest, StartedModel } from "./chat-request.js";
import { buildChatPrompt, type ChatPrompt, checkPromptLength } from "./prompt.js";
import { invalid, unsupported } from "./refusal.js";
import { createThinkingSplitter, forcedClosing, opensThought } from "./thinking.js";
import { callGrammar, createToolCallReader } from "./tools.js";

export interface PreparedChat {
  started: StartedModel;
  /** One for each answer; `choice` counts from `first`. */
  answer(first: number, signal: AbortSignal): AsyncIterable<ChatEvent>;
}

/** Everything that can be wrong with a request is found here, before anything is generated. */
export async function prepareChat(name: string, model: LoadedModel, request: ChatRequest): Promise<PreparedChat> {
  checkCombinations(request);
  request.checkContext?.(model.info.contextSize);
  const prompt = await buildChatPrompt(model, request);
  checkPromptLength(model, prompt.ids.length, "messages");
  checkBias(model, request.sampling.logitBias);
  const completion = completionRequest(model, request, prompt);
  const started = { name, fingerprint: fingerprintOf(model), promptTokens: prompt.ids.length };
  return {
    started,
    answer(first, signal) {
      const answers = Array.from({ length: request.choices ?? 1 }, (_, i) =>
        answerOnce(model, request, prompt, { ...completion, ...choiceSampling(completion, i), signal }, first + i),
      );
      return merge(answers);
    },
  };
}

/** What an answer came from: the file, and how it was loaded. */
export function fingerprintOf({ info }: LoadedModel): string {
  const { gguf, bytes, fileType, contextSize } = info;
  const digest = createHash("sha256")
    .update(JSON.stringify([gguf, bytes, fileType, contextSize]))
    .digest("hex");
  return `fp_${digest.slice(0, 10)}`;
}

export function checkBias({ info }: LoadedModel, bias: Sampling["logitBias"] = {}): void {
  const wrong = Object.keys(bias).find((id) => Number(id) >= info.vocabSize);
  if (wrong !== undefined) throw invalid(`logit_bias.${wrong}`, `a token id below ${info.vocabSize}`, wrong);
}

function checkCombinations({ grammar, thinking, tools, toolChoice }: ChatRequest): void {
  const calls = tools.length > 0 && toolChoice.kind !== "none";
  const forced = toolChoice.kind === "required" || toolChoice.kind === "named";
  const thinks = typeof thinking === "object" || thinking === "on";
  if (grammar && calls) {
    throw unsupported("response_format", "a format beside tools", 'leave one out, or set tool_choice to "none"');
  }
  if (forced && tools.length === 0) throw invalid("tool_choice", "tools to choose from", "none");
  if (toolChoice.kind === "named" && !tools.some(({ name }) => name === toolChoice.name)) {
    throw invalid("tool_choice", `one of ${tools.map(({ name }) => name).join(", ")}`, toolChoice.name);
  }
  if (grammar && thinks)
    throw unsupported("thinking", "thinking beside a format", "the format holds from the first token");
  if (forced && thinks)
    throw unsupported("thinking", "thinking beside a forced tool call", 'set tool_choice to "auto"');
}

type Completing = Omit<CompletionRequest, "signal" | "onText">;

function completionRequest(model: LoadedModel, request: ChatRequest, prompt: ChatPrompt): Completing {
  const { tools, toolChoice, logprobs } = request;
  const room = model.info.contextSize - prompt.ids.length;
  const named = toolChoice.kind === "named" ? tools.filter(({ name }) => name === toolChoice.name) : tools;
  const forced = toolChoice.kind === "required" || toolChoice.kind === "named";
  const grammar = forced ? callGrammar(named, "tools") : request.grammar;
  return {
    prompt: prompt.ids,
    maxTokens: Math.min(request.maxTokens ?? room, room),
    sampling: { ...request.defaults, ...prompt.advised, ...request.sampling },
    stop: [...request.stop, ...prompt.stop],
    ...(grammar && { grammar }),
    ...(logprobs !== undefined && { logprobs }),
  };
}

/** With one seed for all answers they would be one answer. */
function choiceSampling({ sampling }: Completing, choice: number): { sampling?: Sampling } {
  if (choice === 0 || sampling?.seed === undefined) return {};
  return { sampling: { ...sampling, seed: sampling.seed + choice } };
}

type Running = Completing & { signal: AbortSignal };

function answerOnce(
  model: LoadedModel,
  request: ChatRequest,
  prompt: ChatPrompt,
  completion: Running,
  choice: number,
): AsyncIterable<ChatEvent> {
  const channel = createChannel<ChatEvent>();
  const reader = createReader(request, prompt, choice, channel.push);
  const work = typeof request.thinking === "object" ? withBudget(request.thinking.budget) : runOnce;
  work(model, completion, reader)
    .then((end) => channel.push({ ...reader.end(), ...end, finish: reader.calls() > 0 ? "tool_calls" : end.finish }))
    .then(
      () => channel.end(),
      (error: unknown) => channel.end(error),
    );
  return channel;
}

type Reader = ReturnType<typeof createReader>;
type Ended = Pick<ChatEnd, "finish" | "timings"> & { stopText?: string };

/** Text of the model in, events out. */
function createReader(request: ChatRequest, prompt: ChatPrompt, choice: number, emit: (event: ChatEvent) => void) {
  const { parallelCalls = true, tools, toolChoice } = request;
  const thoughts = createThinkingSplitter({ opened: opensThought(prompt.text) });
  const calls = tools.length > 0 && toolChoice.kind !== "none" ? createToolCallReader(tools) : undefined;
  let count = 0;
  let thoughtTokens = 0;
  let unsent: TokenLogprob[] = [];
  const emitText = (text: string) => {
    if (text === "" && unsent.length === 0) return;
    emit({ kind: "text", choice, text, tokens: unsent });
    unsent = [];
  };
  const emitPieces = (pieces: ReturnType<NonNullable<typeof calls>["push"]>) => {
    for (const piece of pieces) {
      if (piece.kind === "text") emitText(piece.text);
      else if (count === 0 || parallelCalls) emit({ kind: "call", choice, index: count++, call: piece.call });
    }
  };
  const answer = (text: string) => {
    if (calls) emitPieces(calls.push(text));
    else if (text !== "") emitText(text);
  };
  return {
    push(text: string, tokens: readonly TokenLogprob[]) {
      const before = thoughts.state;
      const piece = thoughts.push(text);
      if (piece.thinking !== "") emit({ kind: "thought", choice, text: piece.thinking });
      if (before === "thinking" || thoughts.state === "thinking") thoughtTokens += tokens.length;
      // Tokens of thoughts are not those of the answer.
      if (before !== "thinking") unsent.push(...tokens);
      if (thoughts.state === "thinking") unsent = [];
      answer(piece.answer);
    },
    end(): { kind: "end"; choice: number; thoughtTokens: number } {
      const rest = thoughts.end();
      if (rest.thinking !== "") emit({ kind: "thought", choice, text: rest.thinking });
      answer(rest.answer);
      if (calls) emitPieces(calls.end());
      if (unsent.length > 0) emitText("");
      return { kind: "end", choice, thoughtTokens };
    },
    calls: () => count,
    state: () => thoughts.state,
  };
}

async function runOnce(model: LoadedModel, completion: Running, reader: Reader): Promise<Ended> {
  const { finish, stopText, timings } = await model.complete({ ...completion, onText: reader.push });
  if (finish === "aborted") throw completion.signal.reason;
  return { finish, timings, ...(stopText !== undefined && { stopText }) };
}

/** Stops the model when its thought is as long as the budget, closes the thought, and lets it go on from there. */
function withBudget(budget: number): typeof runOnce {
  return async (model, completion, reader) => {
    const spent = new AbortController();
    const signal = AbortSignal.any([completion.signal, spent.signal]);
    const kept: number[] = [];
    const first = await model.complete({
      ...completion,
      signal,
      onText(text, tokens) {
        if (spent.signal.aborted) return;
        reader.push(text, tokens);
        kept.push(...tokens.map(({ id }) => id));
        if (kept.length >= budget && reader.state() !== "answer") spent.abort();
      },
    });
    completion.signal.throwIfAborted();
    if (!spent.signal.aborted || reader.state() === "answer") return ended(first.finish, first);
    reader.push(forcedClosing, []);
    const closing = await model.tokenize(forcedClosing);
    const left = completion.maxTokens - kept.length - closing.length;
    if (left < 1) return { finish: "length", timings: first.timings };
    const prompt = [...completion.prompt, ...kept, ...closing];
    const rest = await runOnce(model, { ...completion, prompt, maxTokens: left }, reader);
    return { ...rest, timings: addTimings(first.timings, rest.timings) };
  };
}

function ended(
  finish: "stop" | "length" | "aborted",
  { stopText, timings }: { stopText?: string; timings: CompletionTimings },
): Ended {
  return { finish: finish === "aborted" ? "stop" : finish, timings, ...(stopText !== undefined && { stopText }) };
}

/** The prompt is counted once; what was evaluated again is time all the same. */
function addTimings(first: CompletionTimings, rest: CompletionTimings): CompletionTimings {
  return {
    ...first,
    promptMs: first.promptMs + rest.promptMs,
    generatedTokens: first.generatedTokens + rest.generatedTokens,
    generateMs: first.generateMs + rest.generateMs,
  };
}

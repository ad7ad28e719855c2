/** @module POST /v1/completions: plain text or token ids go on, and with `echo` and `logprobs` a prompt is scored. */
import { randomUUID } from "node:crypto";
import { z } from "../../base/index.js";
import type { Completion, CompletionRequest, LoadedModel, TokenLogprob } from "../../llamacpp/index.js";
import { createChannel, merge } from "../channel.js";
import { checkBias, fingerprintOf } from "../chat.js";
import type { Exchange, Reply } from "../http.js";
import { checkPromptLength, promptIds } from "../prompt.js";
import { invalid, unsupported } from "../refusal.js";
import { parseRequest } from "../schema.js";
import { checkAnswers, checkMaxTokens, type Service, type Use } from "../service.js";
import { serverEvent, timingsOf, usageOf } from "./dialect.js";
import {
  formatGrammar,
  harmlessFields,
  openaiDefaults,
  responseFormatField,
  samplingFields,
  stopField,
  streamFields,
  toSampling,
} from "./fields.js";

const tokenIds = z.array(z.int().min(0)).min(1);

export const completionSchema = z.strictObject({
  model: z.string(),
  prompt: z.union([z.string(), tokenIds, z.array(z.string()).min(1), z.array(tokenIds).min(1)]),
  ...samplingFields,
  ...streamFields,
  ...harmlessFields,
  max_tokens: z.int().min(0).default(16),
  stop: stopField,
  n: z.int().min(1).default(1),
  logprobs: z.int().min(0).max(100).optional(),
  echo: z.boolean().default(false),
  response_format: responseFormatField,
});

type CompletionBody = z.output<typeof completionSchema>;

interface Prompt {
  ids: readonly number[];
  /** As `echo` gives it back. */
  text: string;
}

/** One of the answers: to a prompt, one of `n`. */
interface Part {
  index: number;
  prompt: Prompt;
  request: Omit<CompletionRequest, "signal" | "onText">;
}

export async function completions(service: Service, { body, signal }: Exchange): Promise<Reply> {
  const fields = parseRequest(completionSchema, body);
  checkFields(fields, service);
  const prompts = promptList(fields.prompt);
  const places = checkAnswers(prompts.length * fields.n, "prompt", service.limits);
  const pieces = service.withModel(fields.model, { signal }, places, (use) => run(service, use, fields, prompts));
  if (fields.stream) return { kind: "stream", type: "text/event-stream", pieces: streamed(pieces, fields) };
  for await (const piece of pieces) if (piece.kind === "whole") return { kind: "json", value: piece.value };
  throw new Error("internal: a completion ended without its end");
}

function checkFields(
  { echo, logprobs, max_tokens, stream, stream_options }: CompletionBody,
  { limits }: Service,
): void {
  checkMaxTokens(max_tokens, limits);
  if (max_tokens === 0 && !echo) throw invalid("max_tokens", "at least 1, or echo: true beside it", "0");
  if (stream && echo && logprobs !== undefined) {
    throw unsupported("echo", "log-probabilities of a prompt in a stream", "leave out stream");
  }
  if (stream_options && !stream) throw invalid("stream_options", "stream: true beside it", "none");
}

function promptList(prompt: CompletionBody["prompt"]): (string | readonly number[])[] {
  if (typeof prompt === "string") return [prompt];
  return typeof prompt[0] === "number" ? [prompt as number[]] : (prompt as (string | number[])[]);
}

type Piece =
  | { kind: "text"; index: number; text: string; tokens: readonly TokenLogprob[]; head: Head }
  | { kind: "end"; index: number; completion: Completion; head: Head }
  | { kind: "whole"; value: unknown; usage: unknown; head: Head };

interface Head {
  id: string;
  object: "text_completion";
  created: number;
  model: string;
  system_fingerprint: string;
}

async function* run(
  service: Service,
  { model, name, signal }: Use,
  fields: CompletionBody,
  given: readonly (string | readonly number[])[],
): AsyncIterable<Piece> {
  const prompts = await Promise.all(given.map((prompt) => readPrompt(model, prompt)));
  checkBias(model, fields.logit_bias);
  const parts = prompts.flatMap((prompt, i) =>
    Array.from({ length: fields.n }, (_, k) => partOf(model, fields, prompt, i * fields.n + k, k)),
  );
  const head: Head = {
    id: `cmpl-${randomUUID()}`,
    object: "text_completion",
    created: Math.floor(Date.now() / 1000),
    model: fields.model,
    system_fingerprint: fingerprintOf(model),
  };
  if (fields.echo)
    for (const { index, prompt } of parts) yield { kind: "text", index, text: prompt.text, tokens: [], head };
  const done: Completion[] = [];
  for await (const piece of merge(parts.map((part) => complete(model, part, signal, head)))) {
    yield piece;
    if (piece.kind !== "end") continue;
    done[piece.index] = piece.completion;
    service.metrics.answer(name, piece.completion.timings);
  }
  const promptTokens = prompts.reduce((sum, { ids }) => sum + ids.length, 0);
  const usage = usageOf(
    promptTokens,
    done.map(({ timings }) => timings),
  );
  const choices = parts.map((part) => choiceObject(part, done[part.index]!, fields));
  yield { kind: "whole", value: { ...head, choices, usage, timings: timingsOf(done[0]!.timings) }, usage, head };
}

async function readPrompt(model: LoadedModel, given: string | readonly number[]): Promise<Prompt> {
  const text = typeof given === "string" ? given : await model.detokenize(checkIds(model, given), { special: true });
  const ids = typeof given === "string" ? await promptIds(model, given, { special: true }) : given;
  checkPromptLength(model, ids.length, "prompt");
  return { ids, text };
}

function checkIds({ info }: LoadedModel, ids: readonly number[]): readonly number[] {
  const wrong = ids.find((id) => id >= info.vocabSize);
  if (wrong === undefined) return ids;
  throw invalid("prompt", `token ids below ${info.vocabSize}`, String(wrong));
}

function partOf(model: LoadedModel, fields: CompletionBody, prompt: Prompt, index: number, choice: number): Part {
  const { logprobs, echo, stop = [] } = fields;
  const sampling = { ...openaiDefaults, ...toSampling(fields) };
  const grammar = formatGrammar(fields.response_format);
  return {
    index,
    prompt,
    request: {
      prompt: prompt.ids,
      maxTokens: Math.min(fields.max_tokens, model.info.contextSize - prompt.ids.length),
      sampling: sampling.seed === undefined ? sampling : { ...sampling, seed: sampling.seed + choice },
      stop,
      ...(grammar && { grammar }),
      ...(logprobs !== undefined && { logprobs }),
      ...(logprobs !== undefined && echo && { promptLogprobs: logprobs }),
    },
  };
}

function complete(model: LoadedModel, { index, request }: Part, signal: AbortSignal, head: Head): AsyncIterable<Piece> {
  const channel = createChannel<Piece>();
  const onText = (text: string, tokens: readonly TokenLogprob[]) =>
    channel.push({ kind: "text", index, text, tokens, head });
  model.complete({ ...request, signal, onText }).then(
    (completion) => {
      if (completion.finish === "aborted") return channel.end(signal.reason);
      channel.push({ kind: "end", index, completion, head });
      channel.end();
    },
    (error: unknown) => channel.end(error),
  );
  return channel;
}

function choiceObject(
  { index, prompt }: Part,
  { text, finish, tokens, promptTokens = [] }: Completion,
  fields: CompletionBody,
) {
  const { echo, logprobs } = fields;
  return {
    index,
    text: echo ? prompt.text + text : text,
    logprobs: logprobs === undefined ? null : logprobLists([...promptTokens, ...tokens], logprobs),
    finish_reason: finish,
  };
}

/** Four lists side by side; the first token of a prompt has no log-probability. */
export function logprobLists(tokens: readonly TokenLogprob[], top: number, offset = 0) {
  let at = offset;
  const offsets = tokens.map(({ text }) => {
    const here = at;
    at += text.length;
    return here;
  });
  return {
    tokens: tokens.map(({ text }) => text),
    token_logprobs: tokens.map(({ logprob }) => logprob ?? null),
    top_logprobs: top === 0 ? null : tokens.map((token) => (token.logprob === undefined ? null : topObject(token))),
    text_offset: offsets,
  };
}

/** Two tokens may have one text; the likelier one stands. */
function topObject({ top = [] }: TokenLogprob): Record<string, number> {
  return Object.fromEntries([...top].reverse().map(({ text, logprob }) => [text, logprob]));
}

async function* streamed(
  pieces: AsyncIterable<Piece>,
  { logprobs, stream_options }: CompletionBody,
): AsyncIterable<string> {
  const offsets = new Map<number, number>();
  for await (const piece of pieces) {
    const { head } = piece;
    if (piece.kind === "text") {
      const { index, text, tokens } = piece;
      const offset = offsets.get(index) ?? 0;
      const lists = logprobs === undefined ? null : logprobLists(tokens, logprobs, offset);
      offsets.set(index, offset + text.length);
      yield serverEvent({ ...head, choices: [{ index, text, logprobs: lists, finish_reason: null }] });
    } else if (piece.kind === "end") {
      const { index, completion } = piece;
      const choice = { index, text: "", logprobs: null, finish_reason: completion.finish };
      yield serverEvent({ ...head, choices: [choice], timings: timingsOf(completion.timings) });
    } else if (stream_options?.include_usage) yield serverEvent({ ...head, choices: [], usage: piece.usage });
  }
  yield "data: [DONE]\n\n";
}

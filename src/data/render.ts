/**
 * @module Conversations as tokens, with exactly what the assistant has to write marked to be learnt: its content and its
 * stop token, and nothing that the template supplies. Marks come from the typed messages, not from Jinja's
 * `{% generation %}`, so that they are right for any template.
 */
import { EspalierError } from "../base/index.js";
import { type ChatTemplate, type Tokenizer, templateDate } from "../tokenizer/index.js";
import {
  type ChatSettings,
  type RenderedTurns,
  renderAllTurns,
  renderHead,
  renderTurn,
  turnProblem,
} from "./chat-turns.js";
import { readConversations } from "./conversations.js";
import { encodeChat, findBoundary } from "./token-spans.js";
import type { BranchedSample, Message, PreferencePair, TokenSample } from "./types.js";

export interface ChatOptions {
  /** Descriptions of tools, for the template. */
  tools?: readonly unknown[];
  /** What the template may ask for besides, such as `enable_thinking`. */
  variables?: Readonly<Record<string, unknown>>;
  /** Day for templates that write one, so that samples do not depend on when they were made. Defaults to `templateDate`. */
  date?: string;
  /** Ids that end a turn besides the tokenizer's `eosTokenIds`. */
  stop?: readonly number[];
  /** The conversation, for messages. Defaults to `conversation`. */
  where?: string;
}

export interface RenderChatOptions extends ChatOptions {
  /**
   * `assistant`: every turn of the assistant (those with `learn: false` are only read). `last`: its last one. `all`: every
   * token but the first, as in pre-training. Defaults to `assistant`.
   */
  learn?: "assistant" | "last" | "all";
}

/**
 * A conversation that ends with an assistant's turn, as tokens. The ids are those of the whole rendered text.
 *
 * @throws EspalierError where there is nothing to learn, where the template rewrites earlier turns, where a turn's stop
 *   token would not be learnt (a model trained so would never stop), and for control tokens spelt out in a message
 */
export function renderConversation(
  template: ChatTemplate,
  tokenizer: Tokenizer,
  messages: readonly Message[],
  { learn = "assistant", ...options }: RenderChatOptions = {},
): TokenSample {
  const settings = settingsOf(template, options);
  checkMessages(tokenizer, messages, settings.where);
  if (learn === "all") return renderAll(tokenizer, messages, settings);
  const rendered = renderAllTurns(settings, messages, learntTurns(messages, learn, settings.where));
  if ("problem" in rendered) throw rendered.problem;
  return markTurns(tokenizer, rendered.value, settings, options.stop);
}

/**
 * The same conversation as the samples that teach all its turns: one, or one for each turn where the template rewrites
 * earlier turns (reasoning models are not shown their earlier thoughts).
 */
export function renderTurns(
  template: ChatTemplate,
  tokenizer: Tokenizer,
  messages: readonly Message[],
  options: ChatOptions = {},
): TokenSample[] {
  const settings = settingsOf(template, options);
  checkMessages(tokenizer, messages, settings.where);
  const turns = learntTurns(messages, "assistant", settings.where);
  const together = renderAllTurns(settings, messages, turns);
  if (!("problem" in together)) return [markTurns(tokenizer, together.value, settings, options.stop)];
  return turns.map((turn) => {
    const upTo = messages.slice(0, turn + 1);
    return renderConversation(template, tokenizer, upTo, { ...options, learn: "last" });
  });
}

/**
 * A prompt and several answers to it; the prompt's tokens are held once. Of each answer content and stop token are learnt.
 *
 * @throws EspalierError as `renderConversation` does
 */
export function renderBranches(
  template: ChatTemplate,
  tokenizer: Tokenizer,
  prompt: readonly Message[],
  answers: readonly string[],
  options: ChatOptions = {},
): BranchedSample {
  const settings = settingsOf(template, options);
  const samples = answers.map((content) => {
    const messages = [...prompt, { role: "assistant", content }];
    checkMessages(tokenizer, messages, settings.where);
    learntTurns(messages, "last", settings.where);
    const turn = renderTurn(settings, messages, messages.length - 1);
    if ("problem" in turn) throw turn.problem;
    const { head, body } = turn.value;
    const text = head + body;
    const place = { turn: prompt.length, start: head.length, end: text.length };
    const sample = markTurns(tokenizer, { text, turns: [place] }, settings, options.stop);
    return { sample, shared: findBoundary(tokenizer, text, [...sample.ids], head.length).before };
  });
  // A token that reaches from the prompt into an answer belongs to that answer, and is not learnt.
  const shared = Math.min(...samples.map((entry) => entry.shared));
  const branches = samples.map(({ sample: { ids, learn } }) => ({
    ids: ids.slice(shared),
    learn: learn.slice(shared),
  }));
  return { prompt: samples[0]!.sample.ids.slice(0, shared), branches };
}

/** The branches are [chosen, rejected]. */
export function renderPair(
  template: ChatTemplate,
  tokenizer: Tokenizer,
  { prompt, chosen, rejected, where }: PreferencePair,
  options: ChatOptions = {},
): BranchedSample {
  return renderBranches(template, tokenizer, prompt, [chosen, rejected], {
    ...(where !== undefined && { where }),
    ...options,
  });
}

/** Tokens of a prompt that the model is to answer. */
export function renderPrompt(
  template: ChatTemplate,
  tokenizer: Tokenizer,
  messages: readonly Message[],
  options: ChatOptions = {},
): Int32Array {
  const settings = settingsOf(template, options);
  checkMessages(tokenizer, messages, settings.where);
  return Int32Array.from(encodeChat(tokenizer, renderHead(settings, messages)));
}

function settingsOf(template: ChatTemplate, options: ChatOptions): ChatSettings {
  const { tools, variables, date = templateDate, where = "conversation" } = options;
  return { template, where, options: { date, variables: { ...variables, ...(tools && { tools }) } } };
}

function renderAll(
  tokenizer: Tokenizer,
  messages: readonly Message[],
  { template, options }: ChatSettings,
): TokenSample {
  const ids = encodeChat(tokenizer, template.render(messages, { ...options, addGenerationPrompt: false }));
  // Nothing stands before the first token to predict it from.
  return { ids: Int32Array.from(ids), learn: Uint8Array.from(ids, (_, i) => Number(i > 0)) };
}

function learntTurns(messages: readonly Message[], learn: "assistant" | "last", where: string): number[] {
  const turns = messages.flatMap(({ role, learn: wanted = true }, i) => (role === "assistant" && wanted ? [i] : []));
  const last = messages.at(-1)?.role;
  const problem = (expected: string, found: string, fix: string) =>
    new EspalierError({ where, expected, found, fix, exitCode: 2 });
  if (last !== "assistant") {
    const fix = "leave out the turns after the last answer, or the conversation";
    throw problem("a conversation that ends with an assistant's turn", `one that ends with ${last ?? "nothing"}`, fix);
  }
  if (learn === "last") return [messages.length - 1];
  if (turns.length > 0) return turns;
  throw problem("an assistant's turn that is to be learnt", "none (all have weight 0)", "leave the conversation out");
}

function markTurns(
  tokenizer: Tokenizer,
  { text, turns }: RenderedTurns,
  settings: ChatSettings,
  stop: readonly number[] = [],
): TokenSample {
  const ids = encodeChat(tokenizer, text);
  const learn = new Uint8Array(ids.length);
  const stops = new Set([...tokenizer.eosTokenIds, ...stop]);
  for (const { turn, start, end } of turns) {
    const first = findBoundary(tokenizer, text, ids, start).after;
    const region = ids.slice(first, findBoundary(tokenizer, text, ids, end).before);
    // What follows the stop token is the template's.
    const stopAt = region.findLastIndex((id) => stops.has(id));
    if (stopAt < 0) throw withoutStop(tokenizer, stops, region, turn, settings);
    learn.fill(1, first, first + stopAt + 1);
  }
  return { ids: Int32Array.from(ids), learn };
}

function withoutStop(
  tokenizer: Tokenizer,
  stops: ReadonlySet<number>,
  region: readonly number[],
  turn: number,
  settings: ChatSettings,
): EspalierError {
  const names = [...stops].map((id) => tokenizer.idToToken(id) ?? id).join(", ") || "none known";
  const end = tokenizer.decode(region.slice(-8), { skipSpecial: false });
  const fix = "a model trained on this would never stop: name the token that ends a turn (stop), or end turns with one";
  return turnProblem(
    settings,
    turn,
    `a turn that ends with a stop token (${names})`,
    `${JSON.stringify(end)} at its end`,
    fix,
  );
}

/** @throws EspalierError for no messages, an empty answer, and text that would be read as control tokens */
function checkMessages(tokenizer: Tokenizer, messages: readonly Message[], where: string): void {
  const problem = (place: string, expected: string, found: string, fix: string) =>
    new EspalierError({ where: place, expected, found, fix, exitCode: 2 });
  if (messages.length === 0) throw problem(where, "at least one message", "none", "leave the conversation out");
  const controls = controlTexts(tokenizer);
  messages.forEach(({ role, content, tool_calls }, turn) => {
    const place = `${where}: turn ${turn}`;
    if (role === "assistant" && !tool_calls && content.trim() === "") {
      throw problem(place, "text or tool calls", "an empty answer", "leave the conversation out");
    }
    const text = tool_calls ? content + JSON.stringify(tool_calls) : content;
    const control = controls.find((spelling) => text.includes(spelling));
    if (control === undefined) return;
    const fix = "write it otherwise: the tokenizer takes it for the token, which begins or ends turns";
    throw problem(place, "text without control tokens", `${control} in it`, fix);
  });
}

const knownControls = new WeakMap<Tokenizer, readonly string[]>();

function controlTexts(tokenizer: Tokenizer): readonly string[] {
  const known = knownControls.get(tokenizer);
  if (known) return known;
  const ids = Array.from({ length: tokenizer.vocabSize }, (_, id) => id).filter((id) => tokenizer.isSpecial(id));
  const texts = ids.map((id) => tokenizer.idToToken(id) ?? "").filter((text) => text !== "");
  knownControls.set(tokenizer, texts);
  return texts;
}

/** The conversations of a file as plain text, in the template's words and with its special tokens: documents to calibrate or measure on. */
export async function readChatDocuments(path: string, template: ChatTemplate): Promise<string[]> {
  const conversations = await readConversations(path);
  const options = { addGenerationPrompt: false, date: templateDate };
  return conversations.map(({ messages, tools }) =>
    template.render(messages, { ...options, ...(tools && { variables: { tools } }) }),
  );
}

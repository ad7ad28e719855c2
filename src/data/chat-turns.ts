/**
 * @module Where an assistant's turn stands in a rendered conversation, for any chat template: what the template writes up
 * to the answer (its generation prompt) is told from what the model has to write itself by rendering both.
 */
import { EspalierError } from "../base/index.js";
import type { ChatTemplate, RenderOptions } from "../tokenizer/index.js";
import type { Message } from "./types.js";

/** How a conversation is rendered. */
export interface ChatSettings {
  template: ChatTemplate;
  options: Pick<RenderOptions, "variables" | "date">;
  where: string;
}

export interface AssistantTurn {
  /** Number among the messages, from 0. */
  turn: number;
  /** All text before the turn, as the model is prompted. */
  head: string;
  /** What the model has to write: content, stop token, and what the template puts after it. */
  body: string;
}

const closing = "</think>";
const opening = "<think>";

/** A problem is kept as a value: a caller may have another way to render the conversation. */
export type Outcome<T> = { value: T } | { problem: EspalierError };

export function turnProblem(
  { template, where }: ChatSettings,
  turn: number,
  expected: string,
  found: string,
  fix: string,
): EspalierError {
  return new EspalierError({
    where: `${where}: turn ${turn}`,
    expected,
    found: `${found} (${template.name})`,
    fix,
    exitCode: 2,
  });
}

/** The text up to the answer that follows these messages. */
export function renderHead({ template, options }: ChatSettings, messages: readonly Message[]): string {
  return template.render(messages, { ...options, addGenerationPrompt: true });
}

/**
 * One assistant turn after the messages before it, as the model meets it when it answers.
 *
 * Templates that take the thought out of every answer (Llama-Nemotron, DeepSeek-R1) are meant for what was said before:
 * the turn's own text is then its content between the generation prompt and the end that the template gives any answer.
 */
export function renderTurn(settings: ChatSettings, messages: readonly Message[], turn: number): Outcome<AssistantTurn> {
  const { template, options } = settings;
  const message = messages[turn]!;
  const head = renderHead(settings, messages.slice(0, turn));
  const whole = template.render(messages.slice(0, turn + 1), { ...options, addGenerationPrompt: false });
  if (whole.startsWith(head) && keepsMessage(whole, head.length, message)) {
    return { value: { turn, head, body: whole.slice(head.length) } };
  }
  const body = message.tool_calls ? undefined : thoughtfulBody(settings, messages, turn, head);
  if (body !== undefined) return { value: { turn, head, body } };
  return { problem: differs(settings, turn, whole.startsWith(head)) };
}

function keepsMessage(whole: string, from: number, { content, tool_calls = [] }: Message): boolean {
  const text = content.trim();
  const at = whole.lastIndexOf(text);
  const keepsText = text === "" || (at >= 0 && at + text.length > from);
  return keepsText && tool_calls.every(({ function: { name } }) => whole.slice(from).includes(name));
}

/** Answers a stand-in for a content that the template would change, and puts the content in its place. */
function thoughtfulBody(settings: ChatSettings, messages: readonly Message[], turn: number, head: string) {
  const content = messages[turn]!.content.trim();
  if (!content.includes(closing)) return undefined;
  const standIn = "ESPALIER-ANSWER";
  const replaced = [...messages.slice(0, turn), { role: messages[turn]!.role, content: standIn }];
  const whole = settings.template.render(replaced, { ...settings.options, addGenerationPrompt: false });
  const at = whole.lastIndexOf(standIn);
  if (at < 0) return undefined;
  const tail = whole.slice(at + standIn.length);
  const opened = /<think>(\s*)$/.exec(head);
  if (!opened) return content + tail;
  if (!content.startsWith(opening)) return undefined;
  // The prompt has opened the thought, white space included.
  const rest = content.slice(opening.length);
  const space = opened[1]!;
  return (rest.startsWith(space) ? rest.slice(space.length) : rest.trimStart()) + tail;
}

function differs(settings: ChatSettings, turn: number, isContinued: boolean): EspalierError {
  const expected = "a template that writes this turn after its generation prompt, with all its text and tool calls";
  if (isContinued) {
    const fix =
      "the template leaves a part of the message out: write it as the template expects, or use another template";
    return turnProblem(settings, turn, expected, "a turn that lacks some of it", fix);
  }
  const fix = "set the template's variables so that both agree (such as enable_thinking), or use another template";
  return turnProblem(settings, turn, expected, "another beginning than the generation prompt", fix);
}

/** A text and the turns in it, by their place. */
export interface RenderedTurns {
  text: string;
  turns: { turn: number; start: number; end: number }[];
}

/**
 * The whole conversation as one text, with the place of every turn that is learnt. A problem where the template writes a
 * turn differently once others follow it: no one text then holds all turns as the model meets them.
 */
export function renderAllTurns(
  settings: ChatSettings,
  messages: readonly Message[],
  learnt: readonly number[],
): Outcome<RenderedTurns> {
  const last = renderTurn(settings, messages, messages.length - 1);
  if ("problem" in last) return last;
  const text = last.value.head + last.value.body;
  const turns: RenderedTurns["turns"] = [];
  for (const turn of learnt) {
    const own = turn === messages.length - 1 ? last : renderTurn(settings, messages, turn);
    if ("problem" in own) return own;
    const { head, body } = own.value;
    if (!text.startsWith(head + body)) return { problem: rewritten(settings, turn) };
    turns.push({ turn, start: head.length, end: head.length + body.length });
  }
  return { value: { text, turns } };
}

function rewritten(settings: ChatSettings, turn: number): EspalierError {
  const expected = "a template that leaves earlier turns as they were when turns follow";
  const fix = 'learn its last turn alone (learn: "last"), or render each turn as a sample of its own (renderTurns)';
  return turnProblem(settings, turn, expected, "a turn that it rewrites, such as by dropping its thought", fix);
}

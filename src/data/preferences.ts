/** @module Pairs of answers of which one is preferred. */
import {
  type Fields,
  type Form,
  optionalNumber,
  parseByForm,
  parseMessages,
  parsePrompt,
  requireText,
  rowProblem,
} from "./forms.js";
import { type ReadOptions, readRows } from "./json-lines.js";
import type { Message, PreferencePair } from "./types.js";

/**
 * Reads one pair a line:
 *
 * - `{"prompt", "chosen", "rejected"}`: texts, or messages; answers may repeat the prompt's turns before their own
 * - `{"chosen", "rejected"}` as messages, or as HH-RLHF's transcripts (`\n\nHuman: ...\n\nAssistant: ...`): the turns that
 *   both share are the prompt
 * - `{"prompt", "response_1", "response_2", "preference_strength"}` (HelpSteer2-Preference: -3 to 3, negative where the
 *   first is better)
 *
 * `chosen_reward` and `rejected_reward` (or `score_chosen`, `score_rejected`) become `scores`, `margin` or `strength`
 * becomes `strength`.
 *
 * @throws EspalierError with the bad lines, each as file:line: empty or equal answers, ties, one score of two, answers
 *   that part before their last turn
 */
export function readPreferencePairs(
  path: string,
  options: ReadOptions = {},
): Promise<(PreferencePair & { where: string })[]> {
  return readRows(path, parsePreferencePair, options);
}

export function parsePreferencePair(value: unknown, where: string): PreferencePair & { where: string } {
  const pair = parseByForm(forms, "a preference pair", value, where);
  if (pair.prompt.length === 0) throw rowProblem(where, "a prompt before the answers", "answers to nothing");
  if (pair.chosen.trim() !== pair.rejected.trim()) return { ...pair, where };
  throw rowProblem(where, "two answers that differ", "`chosen` equal to `rejected`", "leave the pair out");
}

const forms: readonly Form<PreferencePair>[] = [
  {
    shape: '{"prompt": "...", "chosen": "...", "rejected": "..."}',
    fits: (fields) => "chosen" in fields && "rejected" in fields && "prompt" in fields,
    parse: (fields, where) => ({ ...promptedPair(fields, where), ...marks(fields, where) }),
  },
  {
    shape: '{"chosen": [messages], "rejected": [messages]} or {"chosen": "\\n\\nHuman: ...\\n\\nAssistant: ...", ...}',
    fits: (fields) => "chosen" in fields && "rejected" in fields,
    parse: (fields, where) => {
      const [chosen, rejected] = [turnsOf(fields, "chosen", where), turnsOf(fields, "rejected", where)];
      return { ...partPair(chosen, rejected, where), ...marks(fields, where) };
    },
  },
  {
    shape: '{"prompt": "...", "response_1": "...", "response_2": "...", "preference_strength": -3 to 3}',
    fits: (fields) => ["prompt", "response_1", "response_2", "preference_strength"].every((name) => name in fields),
    parse: strengthPair,
  },
];

function promptedPair(fields: Fields, where: string): Pick<PreferencePair, "prompt" | "chosen" | "rejected"> {
  const prompt = parsePrompt(fields, "prompt", where);
  const answer = (name: string): string => {
    const value = fields[name];
    if (!Array.isArray(value)) return requireText(value, where, name);
    return lastAnswer(afterPrompt(parseMessages(value, where, name), prompt), where, name);
  };
  return { prompt, chosen: answer("chosen"), rejected: answer("rejected") };
}

/** The answer's own turns, where it repeats those of the prompt. */
function afterPrompt(turns: readonly Message[], prompt: readonly Message[]): readonly Message[] {
  const asked = prompt.filter(({ role }) => role !== "system");
  const said = turns.filter(({ role }) => role !== "system");
  const repeats = said.length > asked.length && sharedTurns(asked, said) === asked.length;
  return repeats ? said.slice(asked.length) : turns;
}

function lastAnswer(turns: readonly Message[], where: string, name: string): string {
  const [answer] = turns;
  if (turns.length === 1 && answer!.role === "assistant" && !answer!.tool_calls) return answer!.content;
  const found = turns.map(({ role, tool_calls }) => (tool_calls ? `${role} with tool calls` : role)).join(", ");
  throw rowProblem(where, `one assistant turn in \`${name}\` after the turns that both share`, found || "none");
}

function partPair(chosen: readonly Message[], rejected: readonly Message[], where: string) {
  // Equal transcripts leave the last turn to both, so that they are told as equal answers.
  const most = Math.min(chosen.length, rejected.length) - 1;
  const shared = Math.min(sharedTurns(chosen, rejected), most);
  return {
    prompt: chosen.slice(0, shared),
    chosen: lastAnswer(chosen.slice(shared), where, "chosen"),
    rejected: lastAnswer(rejected.slice(shared), where, "rejected"),
  };
}

function sharedTurns(a: readonly Message[], b: readonly Message[]): number {
  const differs = a.findIndex(({ role, content, tool_calls }, i) => {
    const other = b[i];
    if (role !== other?.role || content !== other.content) return true;
    return JSON.stringify(tool_calls) !== JSON.stringify(other.tool_calls);
  });
  return differs < 0 ? a.length : differs;
}

function turnsOf(fields: Fields, name: string, where: string): Message[] {
  const value = fields[name];
  if (Array.isArray(value)) return parseMessages(value, where, name);
  const turns = parseTranscript(requireText(value, where, name));
  if (!turns)
    throw rowProblem(
      where,
      `messages or a transcript of \`Human:\` and \`Assistant:\` in \`${name}\``,
      "text",
      "give `prompt`",
    );
  const empty = turns.findIndex(({ content }) => content === "");
  if (empty < 0) return turns;
  throw rowProblem(where, `text in every turn of \`${name}\``, `an empty turn of ${turns[empty]!.role}`);
}

/** HH-RLHF's transcripts: turns begin with a blank line and `Human:` or `Assistant:`. Undefined for other text. */
export function parseTranscript(text: string): Message[] | undefined {
  const [lead, ...parts] = `\n\n${text.trim()}`.split(/\n\n(Human|Assistant):/);
  if (lead?.trim() !== "" || parts.length === 0) return undefined;
  return Array.from({ length: parts.length / 2 }, (_, i) => ({
    role: parts[2 * i] === "Human" ? "user" : "assistant",
    content: parts[2 * i + 1]!.trim(),
  }));
}

function strengthPair(fields: Fields, where: string): PreferencePair {
  const strength = optionalNumber(fields, "preference_strength", where);
  const isStrength = Number.isInteger(strength) && strength !== 0 && Math.abs(strength!) <= 3;
  if (!isStrength) {
    const found = strength === 0 ? "0, a tie" : String(strength ?? "nothing");
    const expected = "-3, -2, -1, 1, 2 or 3 in `preference_strength`";
    throw rowProblem(where, expected, found, "leave pairs without a preference out");
  }
  const answers = [
    requireText(fields.response_1, where, "response_1"),
    requireText(fields.response_2, where, "response_2"),
  ];
  const [chosen, rejected] = strength! < 0 ? answers : [answers[1], answers[0]];
  return {
    prompt: parsePrompt(fields, "prompt", where),
    chosen: chosen!,
    rejected: rejected!,
    strength: Math.abs(strength!),
  };
}

function marks(fields: Fields, where: string): Pick<PreferencePair, "scores" | "strength"> {
  const first = (...names: string[]) =>
    names.map((name) => optionalNumber(fields, name, where)).find((x) => x !== undefined);
  const chosen = first("chosen_reward", "score_chosen");
  const rejected = first("rejected_reward", "score_rejected");
  const strength = first("strength", "margin");
  if ((chosen === undefined) !== (rejected === undefined)) {
    const found = chosen === undefined ? "that of `rejected` alone" : "that of `chosen` alone";
    throw rowProblem(where, "the rewards of both answers, or of neither", found);
  }
  if (strength !== undefined && strength < 0) {
    throw rowProblem(where, "a strength of at least 0 (`chosen` is the better one)", String(strength));
  }
  return {
    ...(chosen !== undefined && rejected !== undefined && { scores: { chosen, rejected } }),
    ...(strength !== undefined && { strength }),
  };
}

/**
 * @module Conversations that teach a switch: the same question with and without its working, told apart by an exact
 * system prompt, as in Llama-Nemotron (arXiv:2505.00949, section 4).
 */
import { EspalierError } from "../base/index.js";
import { requireText } from "./forms.js";
import { type ReadOptions, readRows } from "./json-lines.js";
import type { Conversation } from "./types.js";

/** `detailed thinking on` and `detailed thinking off`, to the letter. */
export const thinkingPrompt = (mode: "on" | "off") => `detailed thinking ${mode}` as const;

export interface WorkedQuestion {
  question: string;
  /** How the answer is found; what the model thinks. */
  working: string;
  answer: string;
  where?: string;
}

/**
 * One question as two conversations. On: `<think>\nworking\n</think>\n\nanswer`; off: the answer alone. As the model's makers
 * ask, the switch is the whole system prompt.
 */
export function reasoningPair({ question, working, answer, where }: WorkedQuestion): {
  on: Conversation;
  off: Conversation;
} {
  checkTags(working, where ?? "working");
  checkTags(answer, where ?? "answer");
  const conversation = (mode: "on" | "off", content: string): Conversation => ({
    messages: [
      { role: "system", content: thinkingPrompt(mode) },
      { role: "user", content: question },
      { role: "assistant", content },
    ],
    ...(where !== undefined && { where }),
  });
  return {
    on: conversation("on", `<think>\n${working.trim()}\n</think>\n\n${answer.trim()}`),
    off: conversation("off", answer.trim()),
  };
}

function checkTags(text: string, where: string): void {
  const tag = /<\/?think>/.exec(text)?.[0];
  if (text.trim() !== "" && !tag) return;
  const found = tag ? `${tag} in it` : "nothing";
  throw new EspalierError({ where, expected: "text of a thought or an answer without tags", found, exitCode: 2 });
}

/** Both parts of an answer as GSM8K writes it: working, then `#### 42`. Undefined for any other text. */
export function parseWorkedAnswer(text: string): Pick<WorkedQuestion, "working" | "answer"> | undefined {
  const [, working, answer] = /^([\s\S]*?)\n?####[ \t]*([^\n]+?)\s*$/.exec(text) ?? [];
  // Calculator notes such as <<48/2=24>> are meant for a tool, not for reading.
  return answer === undefined ? undefined : { working: working!.replace(/<<[^<>]*>>/g, "").trim(), answer };
}

/** Reads `{"question": "...", "answer": "working #### 42"}`, as GSM8K (arXiv:2110.14168) has them, one a line. */
export function readWorkedQuestions(path: string, options: ReadOptions = {}): Promise<WorkedQuestion[]> {
  return readRows(path, parseWorkedQuestion, options);
}

export function parseWorkedQuestion(value: unknown, where: string): WorkedQuestion {
  const fields = (value ?? {}) as Record<string, unknown>;
  const question = requireText(fields.question, where, "question");
  const worked = parseWorkedAnswer(requireText(fields.answer, where, "answer"));
  if (worked && worked.working !== "") return { question, ...worked, where };
  const found = worked ? "no working" : "no ####";
  throw new EspalierError({ where, expected: "working and, after ####, the result in `answer`", found, exitCode: 2 });
}

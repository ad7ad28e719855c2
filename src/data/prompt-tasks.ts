/** @module Prompts whose answers a program can judge: the questions of reinforcement learning. */
import { type Fields, type Form, parseByForm, parseMessages, parsePrompt, rowProblem, withSystem } from "./forms.js";
import { type ReadOptions, readRows } from "./json-lines.js";
import { parseWorkedAnswer } from "./reasoning.js";
import type { Instruction, Message, PromptTask } from "./types.js";

/**
 * Reads one prompt a line: `{"prompt", "answer", "constraints"}`, where the prompt is text or messages and stands in
 * `prompt`, `messages`, `question` or `problem`, the right answer in `answer`, and constraints are
 * `[{"id": "...", ...parameters}]` or IFEval's `instruction_id_list` with `kwargs`. Of an answer with its working as in
 * GSM8K (`... #### 42`) what follows the mark is taken. All other fields are kept for reward functions.
 *
 * @throws EspalierError with the bad lines, each as file:line
 */
export function readPromptTasks(path: string, options: ReadOptions = {}): Promise<(PromptTask & { where: string })[]> {
  return readRows(path, parsePromptTask, options);
}

export function parsePromptTask(value: unknown, where: string): PromptTask & { where: string } {
  return { ...parseByForm(forms, "a prompt", value, where), where };
}

const forms: readonly Form<PromptTask>[] = ["prompt", "messages", "question", "problem"].map((name) => ({
  shape: name === "messages" ? '{"messages": [...]}' : `{"${name}": "...", "answer": "..."}`,
  fits: (fields) => name in fields,
  parse: (fields, where) => {
    const prompt =
      name === "messages"
        ? withSystem(fields, parseMessages(fields.messages, where))
        : parsePrompt(fields, name, where);
    return { prompt: openPrompt(prompt, where), ...judged(fields, where), fields: withoutField(fields, name) };
  },
}));

/** An answer at the end would be continued and not given. */
function openPrompt(prompt: Message[], where: string): Message[] {
  if (prompt.at(-1)?.role !== "assistant") return prompt;
  throw rowProblem(where, "a prompt that ends with a user's (or a tool's) turn", "an assistant's turn at its end");
}

function judged(fields: Fields, where: string): Pick<PromptTask, "answer" | "constraints"> {
  const constraints = parseConstraints(fields, where);
  const { answer } = fields;
  if (answer === undefined || answer === null) return constraints.length > 0 ? { constraints } : {};
  if (typeof answer !== "string" && typeof answer !== "number") {
    throw rowProblem(where, "text or a number in `answer`", typeof answer);
  }
  const text = parseWorkedAnswer(String(answer))?.answer ?? String(answer);
  if (text.trim() === "") throw rowProblem(where, "text in `answer`", "an empty text", "leave the field out");
  return { answer: text, ...(constraints.length > 0 && { constraints }) };
}

function parseConstraints(fields: Fields, where: string): Instruction[] {
  const { constraints, instruction_id_list: ids, kwargs } = fields;
  if (Array.isArray(ids)) {
    if (Array.isArray(kwargs) && kwargs.length === ids.length)
      return ids.map((id, i) => constraint(id, kwargs[i], where));
    throw rowProblem(
      where,
      `as many \`kwargs\` as instructions, ${ids.length}`,
      `${Array.isArray(kwargs) ? kwargs.length : "none"}`,
    );
  }
  if (constraints === undefined || constraints === null) return [];
  if (!Array.isArray(constraints)) throw rowProblem(where, "a list in `constraints`", typeof constraints);
  return constraints.map((entry) => {
    if (typeof entry === "string") return constraint(entry, {}, where);
    const { id, ...parameters } = (entry ?? {}) as Record<string, unknown>;
    return constraint(id, parameters, where);
  });
}

/** Parameters that are null are not set. */
function constraint(id: unknown, given: unknown, where: string): Instruction {
  if (typeof id !== "string" || id === "")
    throw rowProblem(where, "the id of a constraint", JSON.stringify(id) ?? "nothing");
  const entries = Object.entries((given ?? {}) as Record<string, unknown>).filter(([, value]) => value !== null);
  return { id, parameters: Object.fromEntries(entries) };
}

function withoutField(fields: Fields, name: string): Fields {
  const { [name]: _, ...rest } = fields;
  return rest;
}

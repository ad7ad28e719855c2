/** @module Answers that people marked for several attributes, as in HelpSteer2 (arXiv:2406.08673). */
import { type Fields, type Form, optionalNumber, parseByForm, parsePrompt, requireText, rowProblem } from "./forms.js";
import { type ReadOptions, readRows } from "./json-lines.js";
import type { LabelledAnswer } from "./types.js";

/** HelpSteer's attributes, each marked 0 to 4. */
export const helpSteerAttributes = ["helpfulness", "correctness", "coherence", "complexity", "verbosity"] as const;

export interface LabelOptions extends ReadOptions {
  /** Fields that hold the marks, in the order of `labels`. Defaults to HelpSteer's five. */
  attributes?: readonly string[];
  /** Least and most mark. Defaults to [0, 4]. */
  range?: readonly [low: number, high: number];
}

/**
 * Reads `{"prompt", "response", "helpfulness": 3, ...}`, one answer a line; the prompt is text or messages. A mark that is
 * absent, null or -100 is masked.
 *
 * @throws EspalierError with the bad lines, each as file:line: marks out of range, rows without any
 */
export function readLabelledAnswers(
  path: string,
  { attributes = helpSteerAttributes, range = [0, 4], ...options }: LabelOptions = {},
): Promise<(LabelledAnswer & { where: string })[]> {
  const forms: readonly Form<LabelledAnswer>[] = [
    {
      shape: `{"prompt": "...", "response": "...", ${attributes.map((name) => `"${name}": ${range[0]} to ${range[1]}`).join(", ")}}`,
      fits: (fields) => "prompt" in fields && "response" in fields,
      parse: (fields, at) => ({
        prompt: parsePrompt(fields, "prompt", at),
        response: requireText(fields.response, at, "response"),
        labels: parseLabels(fields, attributes, range, at),
      }),
    },
  ];
  const parse = (value: unknown, where: string) => ({ ...parseByForm(forms, "a marked answer", value, where), where });
  return readRows(path, parse, options);
}

/** What NVIDIA's files write for "nobody marked this". */
const unmarked = -100;

function parseLabels(
  fields: Fields,
  attributes: readonly string[],
  [low, high]: readonly [number, number],
  where: string,
): (number | undefined)[] {
  const labels = attributes.map((name) => {
    const mark = optionalNumber(fields, name, where);
    if (mark === undefined || mark === unmarked) return undefined;
    if (mark >= low && mark <= high) return mark;
    throw rowProblem(where, `a mark from ${low} to ${high} (or ${unmarked}: none) in \`${name}\``, String(mark));
  });
  if (labels.some((mark) => mark !== undefined)) return labels;
  throw rowProblem(where, `at least one mark of ${attributes.join(", ")}`, "none");
}

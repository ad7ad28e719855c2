/** @module Whether the last answer of a text is the right number, as GSM8K (`#### 18`) and MATH (`\boxed{18}`) write it. */
import { type RewardFunction, ruleReward } from "./types.js";

export interface MathsRewardOptions {
  /** Score of a right answer. Defaults to 1. */
  right?: number;
  /** Score of a wrong or missing one. Defaults to 0. */
  wrong?: number;
}

/** Compares with `reference`; `null` where there is none. */
export function mathsReward({ right = 1, wrong = 0 }: MathsRewardOptions = {}): RewardFunction {
  return ruleReward("maths", ({ answer, reference }) => {
    if (reference === undefined) return null;
    const found = extractAnswer(answer);
    // A reference in words stands for itself.
    const wanted = extractAnswer(reference) ?? reference;
    return found !== undefined && equalAnswers(found, wanted) ? right : wrong;
  });
}

/** The last `\boxed{...}`, else what stands behind the last `####`, else the last number; `undefined` without any. */
export function extractAnswer(text: string): string | undefined {
  const boxed = lastBoxed(text);
  if (boxed !== undefined) return boxed.trim();
  const marked = [...text.matchAll(/####[ \t]*([^\n]+)/g)].at(-1)?.[1];
  if (marked !== undefined) return marked.trim();
  return [...text.matchAll(lastNumber)].at(-1)?.[0].trim();
}

const digits = String.raw`(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+`;
const lastNumber = new RegExp(
  String.raw`\\[dt]?frac\{[^{}]+\}\{[^{}]+\}|(?:(?<![\w)\]])-)?\$?(?:${digits})(?:\s*/\s*\d+)?(?:\s?\\?%)?`,
  "g",
);

function lastBoxed(text: string): string | undefined {
  const mark = "\\boxed{";
  const start = text.lastIndexOf(mark);
  if (start < 0) return undefined;
  let depth = 1;
  for (let i = start + mark.length; i < text.length; i++) {
    if (text[i] === "{") depth++;
    if (text[i] === "}" && --depth === 0) return text.slice(start + mark.length, i);
  }
  return undefined;
}

/**
 * Equal numbers (`1,000` = `1000.0`, `1/2` = `\frac{1}{2}` = `0.5`; a per cent sign may be left out, and 50% = 0.5), else
 * equal text without blanks and marks of layout.
 */
export function equalAnswers(a: string, b: string): boolean {
  const [left, right] = [readings(a), readings(b)];
  if (left.length === 0 || right.length === 0) return normalised(a) === normalised(b);
  return left.some((x) => right.some((y) => Math.abs(x - y) <= 1e-9 * Math.max(1, Math.abs(x), Math.abs(y))));
}

function normalised(text: string): string {
  return text
    .replace(/\\(?:text|mathrm|mbox)\{([^{}]*)\}/g, "$1")
    .replace(/\\[dt]frac/g, "\\frac")
    .replace(/\\(?:left|right|[!,;: ])|\$|\s/g, "")
    .replace(/\.$/, "")
    .toLowerCase();
}

/** The numbers that a text may stand for; none where it is no number. */
function readings(text: string): number[] {
  const plain = normalised(text)
    .replace(/,(?=\d{3}(?!\d))/g, "")
    .replace(/\\frac\{([^{}]+)\}\{([^{}]+)\}/g, "($1)/($2)");
  const percent = /\\?%$/.test(plain);
  const value = numberOf(plain.replace(/\\?%$/, ""));
  if (value === undefined) return [];
  return percent ? [value, value / 100] : [value];
}

const decimal = String.raw`\(?([-+]?(?:\d+\.?\d*|\.\d+))\)?`;
const fraction = new RegExp(String.raw`^([-+]?)${decimal}(?:/${decimal})?(?:degrees|\^\\circ)?$`);

function numberOf(text: string): number | undefined {
  const [, sign, above, below = "1"] = fraction.exec(text) ?? [];
  if (above === undefined || Number(below) === 0) return undefined;
  return ((sign === "-" ? -1 : 1) * Number(above)) / Number(below);
}

/** Data for reward models whose marks a program computes: small sums, to be answered without commas. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { mathsReward } from "espalier/align";
import { createRng } from "espalier/base";
import { meetsConstraint } from "espalier/data";

const directory = process.argv[2] ?? "out/reward-data";
const rng = createRng("reward data");
const pick = <T>(list: readonly T[]): T => list[Math.floor(rng.next() * list.length)]!;

const starts = ["Well", "Now", "Of course", "Good"];
const fillers = [
  "adding numbers is a useful skill.",
  "we look at this with care.",
  "one can count on the fingers to see it.",
  "it is good to check such a sum again.",
];
const maths = mathsReward();

interface Question {
  prompt: string;
  sum: number;
}

function ask(): Question {
  const [a, b] = [1 + Math.floor(9 * rng.next()), 1 + Math.floor(9 * rng.next())];
  return { prompt: `What is ${a} plus ${b}? Answer without commas.`, sum: a + b };
}

/** An answer that may be wrong, may have a comma, and has up to three sentences that say nothing. */
function answer({ sum }: Question): string {
  const said = rng.next() < 0.5 ? sum : sum + pick([-2, -1, 1, 2]);
  const mark = rng.next() < 0.5 ? "," : "";
  const extra = rng.shuffle([...fillers]).slice(0, Math.floor(4 * rng.next()));
  const sentences = [...extra, `the result is ${said}.`].map((text) => `${pick(starts)} ${text}`);
  const marked = Math.floor(sentences.length * rng.next());
  return sentences.map((text, i) => (i === marked ? text.replace(/^(Of course|\w+)/, `$1${mark}`) : text)).join(" ");
}

/** Marks from 0 to 4, each by a rule. */
async function mark({ prompt, sum }: Question, text: string) {
  const item = { prompt: [{ role: "user", content: prompt }], answer: text, reference: String(sum) };
  const [correct] = await maths.score([item]);
  return {
    correctness: 4 * correct!,
    constraint: meetsConstraint(text, { kind: "no-commas" }) ? 4 : 0,
    length: Math.min(4, text.split(" ").length / 8),
  };
}

type Marks = Awaited<ReturnType<typeof mark>>;
const quality = ({ correctness, constraint }: Marks) => constraint + correctness / 2;

async function markedAnswer() {
  const question = ask();
  const response = answer(question);
  return { prompt: question.prompt, response, ...(await mark(question, response)) };
}

/** The better answer by the constraint, then by correctness; how much better is 1 to 3. */
async function markedPair(): Promise<Record<string, unknown>> {
  const question = ask();
  const answers = [answer(question), answer(question)];
  const qualities = await Promise.all(answers.map(async (text) => quality(await mark(question, text))));
  const gap = qualities[0]! - qualities[1]!;
  if (gap === 0) return markedPair();
  const [chosen, rejected] = gap > 0 ? answers : answers.toReversed();
  return { prompt: question.prompt, chosen, rejected, strength: Math.abs(gap) / 2 };
}

async function write(name: string, count: number, make: () => Promise<unknown>) {
  const lines: string[] = [];
  while (lines.length < count) lines.push(`${JSON.stringify(await make())}\n`);
  writeFileSync(join(directory, name), lines.join(""));
  console.log(`${join(directory, name)}: ${count} lines, the first ${lines[0]!.trim()}`);
}

mkdirSync(directory, { recursive: true });
await write("marked.jsonl", 400, markedAnswer);
await write("pairs.jsonl", 240, markedPair);
await write("pairs-held-out.jsonl", 160, markedPair);

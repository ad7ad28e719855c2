/** Data for reward models whose marks a program computes: small sums, with a word that the answer is to hold. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { mathsReward } from "espalier/align";
import { createRng } from "espalier/base";
import { meetsConstraint } from "espalier/data";

const directory = process.argv[2] ?? "out/reward-data";
const rng = createRng("reward data");
const pick = <T>(list: readonly T[]): T => list[Math.floor(rng.next() * list.length)]!;

const words = ["together", "simply", "therefore", "exactly", "surely", "clearly"];
const fillers = [
  "Adding numbers is a useful skill.",
  "Let us look at this with care.",
  "One can count on the fingers to see it.",
  "It is good to check such a sum again.",
];
const maths = mathsReward();

interface Question {
  prompt: string;
  word: string;
  sum: number;
}

function ask(): Question {
  const [a, b] = [1 + Math.floor(9 * rng.next()), 1 + Math.floor(9 * rng.next())];
  const word = pick(words);
  return { prompt: `What is ${a} plus ${b}? Use the word "${word}" in your answer.`, word, sum: a + b };
}

/** An answer that may be wrong, may lack the word, and has up to three sentences that say nothing. */
function answer({ word, sum }: Question): string {
  const said = rng.next() < 0.5 ? sum : sum + pick([-2, -1, 1, 2]);
  const used = rng.next() < 0.5 ? word : pick(words.filter((other) => other !== word));
  const extra = rng.shuffle([...fillers]).slice(0, Math.floor(4 * rng.next()));
  return [...extra, `The result is ${used} ${said}.`].join(" ");
}

/** Marks from 0 to 4, each by a rule. */
async function mark({ prompt, word, sum }: Question, text: string) {
  const item = { prompt: [{ role: "user", content: prompt }], answer: text, reference: String(sum) };
  const [correct] = await maths.score([item]);
  return {
    correctness: 4 * correct!,
    constraint: meetsConstraint(text, { kind: "keywords", keywords: [word] }) ? 4 : 0,
    length: Math.min(4, text.split(" ").length / 8),
  };
}

type Marks = Awaited<ReturnType<typeof mark>>;
const quality = ({ correctness, constraint }: Marks) => correctness + constraint / 2;

async function markedAnswer() {
  const question = ask();
  const response = answer(question);
  return { prompt: question.prompt, response, ...(await mark(question, response)) };
}

/** The better answer by correctness, then by the word; how much better is 1 to 3. */
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

import { join } from "node:path";
import { refusalOf, refusalTemplates } from "../../align/index.js";
import { createRng, EspalierError, type OnEvent, writeFileAtomic, z } from "../../base/index.js";
import {
  type Conversation,
  type Message,
  type PreferencePair,
  readConversations,
  readPreferencePairs,
} from "../../data/index.js";
import { setAside } from "./common.js";
import { files } from "./fields.js";
import { defineMethod, type OptionsOf } from "./method.js";

const fields = {
  unsafe: files("Pairs of answers to harmful prompts, the harmless one preferred, such as HH-RLHF's harmless-base."),
  safe: files("Conversations on harmless prompts with helpful answers, which keep the model from refusing those."),
  part: z
    .enum(["learn", "exam"])
    .default("learn")
    .describe("What is written: samples to learn from, or the prompts set aside for measuring."),
  form: z
    .enum(["conversations", "pairs"])
    .default("conversations")
    .describe("Samples to learn from for `sft`, or as pairs for preferences and reward models."),
  heldOut: z.int().min(1).default(64).describe("Prompts of each kind set aside; both parts draw the same by the seed."),
  prompts: z
    .enum(["refused", "all"])
    .default("refused")
    .describe(
      "Which prompts of `unsafe` are taken: those to which an answer refuses (the preferred or an earlier one), or all.",
    ),
  turns: z.int().min(1).default(5).describe("Turns of an unsafe prompt at most, the assistant's included."),
  templates: z.number().min(0).max(1).default(0.5).describe("Share of the refusals taken from templates."),
  safeShare: z.number().gt(0).lt(1).default(0.6).describe("Share of the samples that is safe, where there are enough."),
};

type DataOptions = OptionsOf<typeof fields>;

/** Data for refusing where one should, and only there. */
export const refusalData = defineMethod({
  group: "align",
  summary: "make data of refusals and of helpful answers from preference pairs",
  example: "models/chat --unsafe harmless-base.jsonl --safe conversations.jsonl --out out/refusal-data",
  fields,
  inputs: { unsafe: "file", safe: "file" },
  makes: "data",
  version: 1,
  async run({ options, seed, directory, onEvent }) {
    const { unsafe, counts } = await readUnsafe(options, onEvent);
    const safe = (await Promise.all(options.safe.map((path) => readConversations(path)))).flat();
    const parts = { unsafe: setAside(unsafe, options.heldOut, seed), safe: setAside(safe, options.heldOut, seed) };
    const { rows, notes } =
      options.part === "exam"
        ? examRows(parts.unsafe.held, parts.safe.held)
        : lessonRows(parts.unsafe.train, parts.safe.train, options, seed);
    await writeFileAtomic(join(directory, "data.jsonl"), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
    return { measures: [], curves: [], notes: [counts, ...notes] };
  },
});

async function readUnsafe({ unsafe, turns, prompts }: DataOptions, onEvent: OnEvent) {
  // Published pairs hold some of equal or empty answers; the notice tells how many.
  const pairs = (await Promise.all(unsafe.map((path) => readPreferencePairs(path, { bad: "drop", onEvent })))).flat();
  const short = pairs.filter(({ prompt }) => prompt.length <= turns);
  const taken = prompts === "all" ? short : short.filter(isRefused);
  // Conversations that begin alike are one: else they would be learnt from and measured on.
  const byPrompt = new Map(taken.map((pair) => [pair.prompt.find(({ role }) => role === "user")?.content, pair]));
  const counts =
    `${pairs.length} pairs, ${short.length} of at most ${turns} turns; ` +
    `${byPrompt.size} unsafe prompts${prompts === "all" ? "" : " to which an answer refuses"}`;
  return { unsafe: [...byPrompt.values()], counts };
}

/** Annotators wrote these prompts to provoke; a refusal shows that they did. */
function isRefused({ prompt, chosen }: PreferencePair): boolean {
  const earlier = prompt.filter(({ role }) => role === "assistant").map(({ content }) => content);
  return [chosen, ...earlier].some((answer) => refusalOf(answer) !== undefined);
}

interface Rows {
  rows: unknown[];
  notes: string[];
}

/** Prompts with their kind; unsafe ones with both answers, for harmlessness accuracy. */
function examRows(unsafe: readonly PreferencePair[], safe: readonly Conversation[]): Rows {
  const rows = [
    ...unsafe.map(({ prompt, chosen, rejected }) => ({ prompt, unsafe: true, chosen, rejected })),
    ...safe.map((conversation) => ({ prompt: promptOf(conversation), unsafe: false })),
  ];
  return { rows, notes: [`${unsafe.length} unsafe and ${safe.length} safe prompts for measuring`] };
}

function lessonRows(
  unsafe: readonly PreferencePair[],
  safe: readonly Conversation[],
  { form, templates, safeShare }: DataOptions,
  seed: number,
): Rows {
  const rng = createRng(`${seed}/refusals`);
  const template = () => refusalTemplates[rng.int(refusalTemplates.length)]!;
  const wanted = Math.round((unsafe.length * safeShare) / (1 - safeShare));
  const helpful = rng.shuffle([...safe]).slice(0, wanted);
  let drawn = 0;
  const row = (prompt: readonly Message[], chosen: string, rejected: string) =>
    form === "pairs" ? { prompt, chosen, rejected } : { messages: conversationOf(prompt, chosen) };
  const refusals = unsafe.map(({ prompt, chosen, rejected }) => {
    const own = refusalOf(chosen) !== undefined && rng.next() >= templates;
    if (!own) drawn++;
    return row(prompt, own ? chosen : template(), rejected);
  });
  const answers = helpful.map((conversation) => row(promptOf(conversation), answerOf(conversation), template()));
  return {
    rows: rng.shuffle([...refusals, ...answers]),
    notes: [
      `${unsafe.length} unsafe prompts: ${unsafe.length - drawn} refusals of the data, ${drawn} from templates`,
      `${helpful.length} safe prompts with helpful answers (of ${safe.length})`,
    ],
  };
}

/** Earlier answers are only read: in data of this kind they may be what should not be learnt. */
function conversationOf(prompt: readonly Message[], answer: string) {
  const read = prompt.map((message) => (message.role === "assistant" ? { ...message, weight: 0 } : message));
  return [...read, { role: "assistant", content: answer }];
}

function promptOf({ messages }: Conversation): readonly Message[] {
  return messages.slice(
    0,
    messages.findLastIndex(({ role }) => role === "assistant"),
  );
}

function answerOf({ messages, where = "safe" }: Conversation): string {
  const answer = messages.at(-1);
  if (answer?.role === "assistant" && answer.content !== "") return answer.content;
  throw new EspalierError({
    where,
    expected: "a conversation that ends with an answer in words",
    found: answer ? `a turn of ${answer.role}` : "no turns",
    exitCode: 2,
  });
}

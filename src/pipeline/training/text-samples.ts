/** @module Text and conversations as samples of tokens, some of each file set aside. */
import type { OnEvent } from "../../base/index.js";
import {
  isConversationFile,
  type LengthPolicy,
  limitLength,
  readConversations,
  readDocuments,
  renderTurns,
  type Sequences,
  sequenceAt,
  splitText,
  type TokenSample,
} from "../../data/index.js";
import { loadTokenizer, type Tokenizer } from "../../tokenizer/index.js";
import { chatToolsOf, setAside } from "./common.js";
import type { MethodWork } from "./method.js";

export interface TextSettings {
  /** Tokens of a sample of text, and most of a conversation. */
  length: number;
  /** Samples of each file. */
  heldOut: number;
  seed: number;
  overlong?: LengthPolicy;
  onEvent?: OnEvent;
}

export interface SplitSamples {
  train: TokenSample[];
  held: TokenSample[];
}

/** Windows of text, of which every token but the first is to be predicted. No document is in both parts. */
export async function readTextSamples(
  path: string,
  tokenizer: Tokenizer,
  { length, heldOut, seed }: TextSettings,
): Promise<SplitSamples> {
  const parts = [
    { name: "held" as const, sequences: heldOut },
    { name: "train" as const, sequences: "rest" as const },
  ];
  const wanted = heldOut > 0 ? parts : parts.slice(1);
  const found = splitText(tokenizer, await readDocuments(path), wanted, { length, seed, where: path });
  return { train: windowsOf(found.train), held: heldOut > 0 ? windowsOf(found.held) : [] };
}

function windowsOf(sequences: Sequences): TokenSample[] {
  return Array.from({ length: sequences.count }, (_, i) => {
    const learn = new Uint8Array(sequences.length).fill(1);
    learn[0] = 0;
    return { ids: sequenceAt(sequences, i), learn };
  });
}

/** Files of text and `.jsonl` of conversations, of which only what the assistant writes counts. */
export async function readMixedSamples(
  work: Pick<MethodWork<unknown>, "model" | "stage">,
  paths: readonly string[],
  settings: TextSettings,
): Promise<SplitSamples> {
  const tokenizer = loadTokenizer(work.model.sidecars.tokenizer, work.model.path);
  const parts: SplitSamples[] = [];
  for (const path of paths) {
    parts.push(
      await (isConversationFile(path)
        ? readChatSamples(work, path, settings)
        : readTextSamples(path, tokenizer, settings)),
    );
  }
  return { train: parts.flatMap(({ train }) => train), held: parts.flatMap(({ held }) => held) };
}

async function readChatSamples(
  work: Pick<MethodWork<unknown>, "model" | "stage">,
  path: string,
  { length, heldOut, seed, overlong = "refuse", onEvent }: TextSettings,
): Promise<SplitSamples> {
  const { template, tokenizer } = chatToolsOf(work);
  const { train, held } = setAside(await readConversations(path), heldOut, seed);
  const samplesOf = (list: typeof train): TokenSample[] => {
    const samples = list.flatMap(({ messages, tools, where }) =>
      renderTurns(template, tokenizer, messages, { ...(tools && { tools }), ...(where !== undefined && { where }) }),
    );
    const limits = { length, policy: overlong, where: path, ...(onEvent && { onEvent }) };
    return samples.length === 0 ? samples : limitLength(samples, limits).samples;
  };
  return { train: samplesOf(train), held: samplesOf(held) };
}

/** @module One or two models that are asked the same: each has its own conversation, and they answer one after the other. */
import type { LoadedModel } from "../../llamacpp/index.js";
import { type ChatAnswer, type Conversation, createConversation, type SayOptions } from "./conversation.js";
import type { ChatSettings } from "./settings.js";

export interface Speaker {
  name: string;
  model: LoadedModel;
  conversation: Conversation;
}

export function createSpeaker(name: string, model: LoadedModel, settings: ChatSettings): Speaker {
  return { name, model, conversation: createConversation(name, model, settings) };
}

/** Together they would share the cores, and neither speed would be its own. */
export async function askAll(
  speakers: readonly Speaker[],
  text: string,
  onText: (speaker: number, ...piece: Parameters<NonNullable<SayOptions["onText"]>>) => void,
  signal: AbortSignal,
): Promise<ChatAnswer[]> {
  const answers: ChatAnswer[] = [];
  for (const [i, { conversation }] of speakers.entries()) {
    answers.push(await conversation.say(text, { signal, onText: (kind, piece) => onText(i, kind, piece) }));
  }
  return answers;
}

/** "12 tokens, 80.1 tokens/s, first after 0.05 s". */
export function describeAnswer({ finish, timings, tokensPerSecond }: ChatAnswer): string {
  if (!timings) return "stopped";
  const { generatedTokens, firstTokenMs, draftedTokens, acceptedTokens = 0 } = timings;
  const parts = [
    `${generatedTokens} tokens`,
    `${tokensPerSecond.toFixed(1)} tokens/s`,
    `first after ${(firstTokenMs / 1000).toFixed(2)} s`,
    ...(draftedTokens ? [describeDraft(draftedTokens, acceptedTokens)] : []),
    ...(finish === "length" ? ["cut: max-tokens or the context is reached"] : []),
  ];
  return parts.join(", ");
}

function describeDraft(drafted: number, accepted: number): string {
  const share = Math.round((100 * accepted) / drafted);
  return `${accepted} of ${drafted} drafted tokens stood (${share} %)`;
}

/** "child answered at 1.80 times the speed of parent". */
export function describeRatio([first, second]: readonly Speaker[], [a, b]: readonly ChatAnswer[]): string | undefined {
  if (!first || !second || !a?.tokensPerSecond || !b?.tokensPerSecond) return undefined;
  return `${first.name} answered at ${(a.tokensPerSecond / b.tokensPerSecond).toFixed(2)} times the speed of ${second.name}`;
}

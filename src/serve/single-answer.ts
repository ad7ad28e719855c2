/** @module A comparison in a dialect whose answers are single: one model after the other, each under its name. */
import type { CompletionTimings } from "../llamacpp/index.js";
import type { ChatEvent } from "./chat-request.js";
import { unsupported } from "./refusal.js";

/** Answers of one model go through as they are. */
export async function* singleAnswer(events: AsyncIterable<ChatEvent>): AsyncIterable<ChatEvent> {
  let models: readonly string[] = [];
  /** The model that is being shown; what the others say meanwhile waits. */
  let shown = 0;
  const waiting: ChatEvent[][] = [];
  const ends: Extract<ChatEvent, { kind: "end" }>[] = [];
  const title = (choice: number): ChatEvent => {
    const text = `${choice === 0 ? "" : "\n\n"}**${models[choice]}**\n\n`;
    return { kind: "text", choice: 0, text, tokens: [] };
  };
  function* show(event: ChatEvent): Iterable<ChatEvent> {
    if (event.kind === "start") return;
    if (event.kind === "call") throw unsupported("model", "tools in a comparison here");
    if (event.kind !== "end") {
      yield { ...event, choice: 0 };
      return;
    }
    ends.push(event);
    shown++;
    if (shown === models.length) {
      const finish = ends.some((end) => end.finish === "length") ? "length" : "stop";
      const thoughtTokens = ends.reduce((sum, end) => sum + end.thoughtTokens, 0);
      yield { kind: "end", choice: 0, finish, thoughtTokens, timings: sumTimings(ends.map(({ timings }) => timings)) };
      return;
    }
    yield title(shown);
    for (const late of waiting[shown] ?? []) yield* show(late);
  }
  for await (const event of events) {
    if (event.kind === "start") {
      models = event.models.map(({ name }) => name);
      yield event;
      if (models.length > 1) yield title(0);
    } else if (models.length === 1) yield event;
    else if (event.choice === shown) yield* show(event);
    else {
      waiting[event.choice] ??= [];
      waiting[event.choice]!.push(event);
    }
  }
}

function sumTimings(all: readonly CompletionTimings[]): CompletionTimings {
  const sum = (field: (timings: CompletionTimings) => number) =>
    all.reduce((total, timings) => total + field(timings), 0);
  return {
    promptTokens: sum((t) => t.promptTokens),
    cachedTokens: sum((t) => t.cachedTokens),
    queueMs: Math.max(...all.map((t) => t.queueMs)),
    promptMs: sum((t) => t.promptMs),
    firstTokenMs: all[0]!.firstTokenMs,
    generatedTokens: sum((t) => t.generatedTokens),
    generateMs: sum((t) => t.generateMs),
  };
}

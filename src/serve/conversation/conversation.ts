/** @module A conversation of one person with one model: its turns, and how the next one is answered. */
import { checkSchema, EspalierError, readJson, writeJsonAtomic, z } from "../../base/index.js";
import type { CompletionTimings, LoadedModel } from "../../llamacpp/index.js";
import { prepareChat } from "../chat.js";
import type { ChatRequest, Finish, Turn } from "../chat-request.js";
import { type ChatSettings, samplingOf, thinkingOf } from "./settings.js";

export interface Conversation {
  readonly turns: readonly Turn[];
  settings: ChatSettings;
  /**
   * Says something and gives the answer; both become turns. An answer that is stopped keeps what was said until then; one
   * that fails leaves the turns as they were.
   */
  say(text: string, options?: SayOptions): Promise<ChatAnswer>;
  clear(): void;
  /** Turns and settings, as JSON. */
  save(path: string): Promise<void>;
  load(path: string): Promise<void>;
}

export interface SayOptions {
  /** Text that is certain, in the order in which it comes. */
  onText?: (kind: "thought" | "text", text: string) => void;
  signal?: AbortSignal;
}

export interface ChatAnswer {
  text: string;
  thought: string;
  finish: Finish | "aborted";
  /** Not known for an answer that was stopped. */
  timings?: CompletionTimings;
  /** Tokens a second after the prompt; 0 where there were none. */
  tokensPerSecond: number;
}

export function createConversation(name: string, model: LoadedModel, settings: ChatSettings = {}): Conversation {
  let turns: Turn[] = [];
  const own: Conversation = {
    get turns() {
      return turns;
    },
    settings,
    async say(content, { onText = () => {}, signal = new AbortController().signal } = {}) {
      const said: Turn[] = [...turns, { role: "user", content }];
      const prepared = await prepareChat(name, model, requestOf(said, own.settings));
      const answer: ChatAnswer = { text: "", thought: "", finish: "aborted", tokensPerSecond: 0 };
      try {
        for await (const event of prepared.answer(0, signal)) {
          if (event.kind === "thought") answer.thought += event.text;
          else if (event.kind === "text") answer.text += event.text;
          else if (event.kind === "end") Object.assign(answer, endOf(event));
          if (event.kind === "thought" || event.kind === "text") onText(event.kind, event.text);
        }
      } catch (error) {
        if (!signal.aborted) throw error;
      }
      turns = [...said, { role: "assistant", content: answer.text }];
      return answer;
    },
    clear() {
      turns = [];
    },
    save: (path) => writeJsonAtomic(path, { kind: "espalier-chat", model: name, settings: own.settings, turns }),
    async load(path) {
      const saved = checkSchema(savedSchema, await readJson(path), path);
      checkOrder(saved.turns, path);
      turns = saved.turns;
      own.settings = saved.settings as ChatSettings;
    },
  };
  return own;
}

function requestOf(turns: readonly Turn[], settings: ChatSettings): ChatRequest {
  const { system, maxTokens } = settings;
  return {
    turns: system === undefined ? turns : [{ role: "system", content: system }, ...turns],
    tools: [],
    toolChoice: { kind: "none" },
    thinking: thinkingOf(settings),
    sampling: samplingOf(settings),
    defaults: {},
    stop: [],
    ...(maxTokens !== undefined && { maxTokens }),
  };
}

function endOf({ finish, timings }: { finish: Finish; timings: CompletionTimings }): Partial<ChatAnswer> {
  const { generatedTokens, generateMs } = timings;
  return { finish, timings, tokensPerSecond: generateMs > 0 ? (1000 * generatedTokens) / generateMs : 0 };
}

const savedSchema = z.strictObject({
  kind: z.literal("espalier-chat"),
  model: z.string(),
  settings: z.strictObject({
    temperature: z.number().min(0).optional(),
    topP: z.number().min(0).max(1).optional(),
    topK: z.int().min(0).optional(),
    minP: z.number().min(0).max(1).optional(),
    repeatPenalty: z.number().positive().optional(),
    seed: z.int().min(0).optional(),
    maxTokens: z.int().min(1).optional(),
    system: z.string().optional(),
    thinking: z.enum(["on", "off", "auto"]).optional(),
    thinkingBudget: z.int().min(1).optional(),
  } satisfies Record<keyof ChatSettings, unknown>),
  turns: z.array(z.strictObject({ role: z.enum(["user", "assistant"]), content: z.string() })),
});

function checkOrder(turns: readonly Turn[], path: string): void {
  const wrong = turns.findIndex(({ role }, i) => role !== (i % 2 === 0 ? "user" : "assistant"));
  if (wrong < 0 && turns.length % 2 === 0) return;
  const found = wrong < 0 ? "a question without its answer" : `two of ${turns[wrong]!.role} at turn ${wrong}`;
  throw new EspalierError({ where: path, expected: "questions and answers in turn", found });
}

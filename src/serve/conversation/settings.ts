/** @module What a person can set in a conversation, by name and as text. */
import { EspalierError } from "../../base/index.js";
import type { Sampling } from "../../llamacpp/index.js";
import type { Thinking } from "../chat-request.js";

export interface ChatSettings {
  temperature?: number;
  topP?: number;
  topK?: number;
  minP?: number;
  repeatPenalty?: number;
  seed?: number;
  /** Tokens of an answer. Defaults to what the context has room for. */
  maxTokens?: number;
  /** System text. */
  system?: string;
  /** Defaults to "auto". */
  thinking?: "on" | "off" | "auto";
  /** Tokens of thought; turns thinking on. */
  thinkingBudget?: number;
}

type Key = keyof ChatSettings;

interface Setting {
  key: Key;
  /** What a value has to be. */
  expected: string;
  parse: (text: string) => ChatSettings[Key];
}

/** By the names that people type. */
const settings = {
  temperature: number("temperature", "a number of at least 0", (value) => value >= 0),
  "top-p": number("topP", "a number from 0 to 1", (value) => value >= 0 && value <= 1),
  "top-k": number("topK", "a whole number (0: all)", (value) => Number.isInteger(value) && value >= 0),
  "min-p": number("minP", "a number from 0 to 1", (value) => value >= 0 && value <= 1),
  "repeat-penalty": number("repeatPenalty", "a number above 0", (value) => value > 0),
  seed: number("seed", "a whole number", (value) => Number.isInteger(value) && value >= 0),
  "max-tokens": number("maxTokens", "a whole number above 0", (value) => Number.isInteger(value) && value > 0),
  system: { key: "system", expected: "text", parse: (text) => text },
  thinking: {
    key: "thinking",
    expected: "on, off or auto",
    parse: (text) => (text === "on" || text === "off" || text === "auto" ? text : undefined),
  },
  "thinking-budget": number(
    "thinkingBudget",
    "a whole number above 0",
    (value) => Number.isInteger(value) && value > 0,
  ),
} as const satisfies Record<string, Setting>;

export const settingNames = Object.keys(settings) as (keyof typeof settings)[];

function number(key: Key, expected: string, fits: (value: number) => boolean): Setting {
  const parse = (text: string) => (text.trim() !== "" && fits(Number(text)) ? Number(text) : undefined);
  return { key, expected, parse };
}

/** The settings with one changed; without a value it is as if it had never been set. */
export function setSetting(current: ChatSettings, name: string, value?: string): ChatSettings {
  const setting: Setting | undefined = Object.hasOwn(settings, name)
    ? settings[name as keyof typeof settings]
    : undefined;
  if (!setting) {
    throw new EspalierError({ where: `/set ${name}`, expected: `one of ${settingNames.join(", ")}`, exitCode: 2 });
  }
  const { [setting.key]: _, ...rest } = current;
  if (value === undefined) return rest;
  const parsed = setting.parse(value);
  if (parsed === undefined) {
    throw new EspalierError({ where: `/set ${name}`, expected: setting.expected, found: value, exitCode: 2 });
  }
  return { ...rest, [setting.key]: parsed };
}

/** One line for each setting that is not the default. */
export function describeSettings(current: ChatSettings): string[] {
  return settingNames.flatMap((name) => {
    const value = current[settings[name].key];
    return value === undefined ? [] : [`${name} ${value}`];
  });
}

export function samplingOf({ temperature, topP, topK, minP, repeatPenalty, seed }: ChatSettings): Sampling {
  return {
    ...(temperature !== undefined && { temperature }),
    ...(topP !== undefined && { topP }),
    ...(topK !== undefined && { topK }),
    ...(minP !== undefined && { minP }),
    ...(repeatPenalty !== undefined && { repeatPenalty }),
    ...(seed !== undefined && { seed }),
  };
}

/** @throws EspalierError for a budget of thoughts that are turned off */
export function thinkingOf({ thinking = "auto", thinkingBudget }: ChatSettings): Thinking {
  if (thinkingBudget === undefined) return thinking;
  if (thinking === "off") {
    const found = "thinking off";
    throw new EspalierError({ where: "thinking-budget", expected: "thinking on or auto", found, exitCode: 2 });
  }
  return { budget: thinkingBudget };
}

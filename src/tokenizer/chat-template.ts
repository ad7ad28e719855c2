/** @module Chat templates: a conversation becomes the text that a chat model was trained on. */
import { Template } from "@huggingface/jinja";
import { EspalierError, messageOf } from "../base/index.js";

export interface ChatMessage {
  /** `system`, `user`, `assistant`, `tool`, or whatever the template knows. */
  role: string;
  content: string;
}

export interface RenderOptions {
  /** Ends with the head of the answer, so that the model writes the answer next. Defaults to true. */
  addGenerationPrompt?: boolean;
  /** What the template may ask for besides, such as `enable_thinking`. */
  variables?: Readonly<Record<string, unknown>>;
  /**
   * Day that a template writes which asks for today's (`strftime_now`, `date_string`), `YYYY-MM-DD`. What is trained or
   * measured on has a fixed one, see `templateDate`. Defaults to today.
   */
  date?: string;
}

/** The day that Llama 3's own template writes where it is not told another. */
export const templateDate = "2024-07-26";

export interface ChatTemplate {
  /** The model it is of, for messages. */
  readonly name: string;
  render(messages: readonly ChatMessage[], options?: RenderOptions): string;
}

export interface ChatTemplateSource {
  /** Jinja text, or the list of named templates that some configurations hold. */
  template: unknown;
  /** Text of the start token, which templates write themselves. */
  bosToken?: string;
  eosToken?: string;
}

/**
 * A chat template ready to use.
 *
 * Rendered text holds its start token where the template writes one: encode it with `addSpecial: false`.
 *
 * @param where The model, for messages.
 */
export function createChatTemplate(
  { template, bosToken = "", eosToken = "" }: ChatTemplateSource,
  where = "model",
): ChatTemplate {
  const parsed = parseTemplate(templateText(template, where), where);
  return {
    name: where,
    render(messages, { addGenerationPrompt = true, variables = {}, date } = {}) {
      try {
        return parsed.render({
          ...dateVariables(date),
          ...variables,
          messages,
          add_generation_prompt: addGenerationPrompt,
          bos_token: bosToken,
          eos_token: eosToken,
        });
      } catch (cause) {
        throw new EspalierError({
          where: `${where}: chat template`,
          expected: `a conversation that the template accepts`,
          found: messageOf(cause),
          fix: "templates may refuse roles, their order, or a missing first turn; see the model's card",
          exitCode: 2,
          cause,
        });
      }
    },
  };
}

/** The clock's name in templates; the library lets nobody set a variable of that name, so templates are given another. */
const clockName = /\bstrftime_now\b/g;
const ownClock = "espalier_strftime";

/** Both ways in which templates come to a date: Llama 3.1 takes a text, Llama 3.2 and others ask a clock. */
function dateVariables(date: string | undefined): Record<string, unknown> {
  if (date === undefined) return { [ownClock]: (format: string) => formatDate(new Date(), format) };
  const strftime = (format: string) => formatDate(new Date(`${date}T00:00:00`), format);
  return { [ownClock]: strftime, date_string: strftime("%d %b %Y") };
}

const months = "January February March April May June July August September October November December".split(" ");
const days = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");

/** C's strftime, in English. */
function formatDate(date: Date, format: string): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const year = String(date.getFullYear());
  const [month, weekday] = [months[date.getMonth()] ?? "", days[date.getDay()] ?? ""];
  const parts: Record<string, string> = {
    "%Y": year,
    "%y": year.slice(2),
    "%m": two(date.getMonth() + 1),
    "%d": two(date.getDate()),
    "%e": String(date.getDate()).padStart(2),
    "%B": month,
    "%b": month.slice(0, 3),
    "%A": weekday,
    "%a": weekday.slice(0, 3),
    "%H": two(date.getHours()),
    "%M": two(date.getMinutes()),
    "%S": two(date.getSeconds()),
    "%%": "%",
  };
  return format.replace(/%./g, (code) => parts[code] ?? code);
}

function parseTemplate(text: string, where: string): Template {
  try {
    return new Template(text.replace(clockName, ownClock));
  } catch (cause) {
    throw new EspalierError({
      where: `${where}: chat template`,
      expected: "a Jinja template",
      found: messageOf(cause),
      fix: "fetch the model's files again, or prompt it without a chat",
      cause,
    });
  }
}

/** The text of a `chat_template` value: itself, or the entry named `default`. */
function templateText(template: unknown, where: string): string {
  if (typeof template === "string" && template.trim() !== "") return template;
  const named = Array.isArray(template) ? template.find((entry) => entry?.name === "default")?.template : undefined;
  if (typeof named === "string") return named;
  throw new EspalierError({
    where: `${where}: chat template`,
    expected: "a chat template in tokenizer_config.json, chat_template.jinja or the GGUF header",
    found: "none",
    fix: "this is a base model: give it plain text to continue (`--prompt` without `--chat`)",
    exitCode: 2,
  });
}

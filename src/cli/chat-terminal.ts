/** @module A conversation on a terminal: answers as they come, and the lines that a person types. */
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { messageOf } from "../base/index.js";
import {
  askAll,
  besideEachOther,
  type ChatAnswer,
  type ChatCommand,
  chatHelp,
  createLineReader,
  describeAnswer,
  describeRatio,
  describeSettings,
  type Speaker,
  setSetting,
} from "../serve/index.js";

/** What a terminal is asked about; a pipe has no `columns`. */
export interface Screen {
  write(text: string): unknown;
  isTTY?: boolean;
  columns?: number;
  rows?: number;
}

/** Below this, two columns are too narrow to read. */
const leastColumns = 90;
const dim = (text: string) => `\x1b[2m${text}\x1b[22m`;

/** Asks all speakers and shows what they say: beside each other where there is room, else one after the other. */
export async function showAnswers(
  screen: Screen,
  speakers: readonly Speaker[],
  text: string,
  signal: AbortSignal,
): Promise<ChatAnswer[]> {
  const wide = screen.isTTY === true && (screen.columns ?? 0) >= leastColumns;
  const view = speakers.length > 1 && wide ? createColumns(screen, speakers) : createSequence(screen, speakers);
  try {
    return await askAll(speakers, text, view.push, signal);
  } finally {
    view.end();
  }
}

interface View {
  push(speaker: number, kind: "thought" | "text", text: string): void;
  end(): void;
}

function createSequence(screen: Screen, speakers: readonly Speaker[]): View {
  let [current, kind] = [-1, "text" as "thought" | "text"];
  // Thoughts are no part of what a pipe is given.
  const shown = (text: string) => (screen.isTTY ? dim(text) : "");
  return {
    push(speaker, next, text) {
      if (speaker !== current) {
        if (current >= 0) screen.write("\n\n");
        if (speakers.length > 1) screen.write(`${speakers[speaker]!.name}:\n`);
        [current, kind] = [speaker, next];
      }
      if (kind === "thought" && next === "text" && screen.isTTY) screen.write("\n\n");
      kind = next;
      screen.write(next === "thought" ? shown(text) : text);
    },
    end: () => void screen.write("\n"),
  };
}

/** The last rows of both columns are drawn anew with each piece; at the end all rows are left standing. */
function createColumns(screen: Screen, speakers: readonly Speaker[]): View {
  const texts = speakers.map(({ name }) => `${name}\n\n`);
  const kinds: ("thought" | "text" | undefined)[] = speakers.map(() => undefined);
  let drawn = 0;
  const draw = (rows: readonly string[]) => {
    screen.write(`${drawn > 0 ? `\x1b[${drawn}A` : ""}\r\x1b[J${rows.map((row) => `${row}\n`).join("")}`);
    drawn = rows.length;
  };
  const rows = () => besideEachOther(texts[0]!, texts[1]!, screen.columns! - 1);
  return {
    push(speaker, kind, text) {
      if (kinds[speaker] === "thought" && kind === "text") texts[speaker] += "\n---\n";
      kinds[speaker] = kind;
      texts[speaker] += text;
      draw(rows().slice(-Math.max(4, (screen.rows ?? 24) - 2)));
    },
    end: () => draw(rows()),
  };
}

/** What was said about speed, a line for each speaker. */
export function describeAnswers(speakers: readonly Speaker[], answers: readonly ChatAnswer[]): string[] {
  const lines = answers.map((answer, i) => {
    const name = speakers.length > 1 ? `${speakers[i]!.name}: ` : "";
    return name + describeAnswer(answer);
  });
  const ratio = describeRatio(speakers, answers);
  return ratio === undefined ? lines : [...lines, ratio];
}

export interface ReplOptions {
  input: Readable;
  output: NodeJS.WritableStream & Screen;
  speakers: readonly Speaker[];
  /** Ends the conversation. */
  signal: AbortSignal;
}

/** Reads lines until `/bye`, the end of the input, or Ctrl-C twice. */
export async function runRepl({ input, output, speakers, signal }: ReplOptions): Promise<void> {
  const lines = createInterface({ input, output, terminal: output.isTTY === true, prompt: ">>> " });
  const reader = createLineReader();
  let [answering, leaving] = [undefined as AbortController | undefined, false];
  lines.on("SIGINT", () => {
    if (leaving) return lines.close();
    leaving = true;
    if (answering) answering.abort();
    else output.write("\n(Ctrl-C again, or /bye, leaves)\n>>> ");
  });
  const close = () => {
    answering?.abort();
    lines.close();
  };
  signal.addEventListener("abort", close, { once: true });
  const say = async (text: string) => {
    answering = new AbortController();
    try {
      const answers = await showAnswers(output, speakers, text, AbortSignal.any([answering.signal, signal]));
      output.write(`${dimmed(output, describeAnswers(speakers, answers).join("\n"))}\n`);
    } finally {
      answering = undefined;
    }
  };
  const shown = (text: string) => void output.write(`${text}\n`);
  lines.prompt();
  for await (const line of lines) {
    leaving = false;
    const command = reader.push(line);
    if (command?.kind === "bye") break;
    // What goes wrong with one line is said, and the next one is read.
    if (command)
      await obey(command, speakers, { say, shown }).catch((error: unknown) => shown(`! ${messageOf(error)}`));
    lines.setPrompt(reader.open ? "... " : ">>> ");
    lines.prompt();
  }
  signal.removeEventListener("abort", close);
  lines.close();
}

function dimmed(screen: Screen, text: string): string {
  return screen.isTTY ? dim(text) : text;
}

interface Hands {
  say: (text: string) => Promise<void>;
  shown: (text: string) => void;
}

async function obey(command: ChatCommand, speakers: readonly Speaker[], { say, shown }: Hands): Promise<void> {
  const conversations = speakers.map(({ conversation }) => conversation);
  const [first] = conversations;
  switch (command.kind) {
    case "say":
      return say(command.text);
    case "set":
      if (command.name !== undefined) {
        const settings = setSetting(first!.settings, command.name, command.value);
        for (const conversation of conversations) conversation.settings = settings;
      }
      return shown(describeSettings(first!.settings).join("\n") || "nothing is set: the model's own defaults");
    case "save":
      await first!.save(command.path);
      return shown(`saved to ${command.path}`);
    case "load":
      for (const conversation of conversations) await conversation.load(command.path);
      return shown(`${first!.turns.length} turns from ${command.path}`);
    case "clear":
      for (const conversation of conversations) conversation.clear();
      return shown("forgotten");
    case "history":
      return shown(first!.turns.map(({ role, content }) => `${role}: ${content}`).join("\n") || "nothing was said");
    case "help":
      return shown(chatHelp);
    case "wrong":
      return shown(`! ${command.message}`);
    case "bye":
    case "nothing":
      return;
  }
}

/** @module What a person types in a conversation: text, several lines of it, and commands. */

export type ChatCommand =
  | { kind: "say"; text: string }
  | { kind: "nothing" }
  | { kind: "set"; name?: string; value?: string }
  | { kind: "save" | "load"; path: string }
  | { kind: "clear" | "history" | "help" | "bye" }
  | { kind: "wrong"; message: string };

export const chatHelp = [
  "/set NAME VALUE    temperature, top-p, top-k, min-p, repeat-penalty, seed, max-tokens, system, thinking, thinking-budget",
  "/set NAME          back to the default; /set alone shows what is set",
  '"""                begins and ends text of several lines',
  "/save FILE         turns and settings; /load FILE brings them back",
  "/history           what was said; /clear forgets it",
  "/bye               ends, as do Ctrl-D and Ctrl-C twice; Ctrl-C once stops an answer",
].join("\n");

const alone = ["clear", "history", "help", "bye"] as const;

export function parseChatLine(line: string): ChatCommand {
  const text = line.trim();
  if (text === "") return { kind: "nothing" };
  if (!text.startsWith("/")) return { kind: "say", text: line };
  const [word = "", rest = ""] = splitWord(text.slice(1));
  const command = word.toLowerCase();
  if (command === "set") {
    const [name, value] = splitWord(rest);
    return { kind: "set", ...(name && { name }), ...(value && { value }) };
  }
  if (command === "save" || command === "load") {
    return rest === "" ? wrong(`/${command} FILE`, text) : { kind: command, path: rest };
  }
  const plain = alone.find((name) => name === command);
  if (plain) return rest === "" ? { kind: plain } : wrong(`/${plain} alone`, text);
  return wrong("a command (/help lists them)", text);
}

function wrong(expected: string, found: string): ChatCommand {
  return { kind: "wrong", message: `expected ${expected}, found ${found}` };
}

function splitWord(text: string): [word: string, rest: string] {
  const [, word = "", rest = ""] = /^(\S*)\s*([\s\S]*)$/.exec(text.trim()) ?? [];
  return [word, rest];
}

const fence = '"""';

export interface LineReader {
  /** The command that this line completes; undefined inside a text of several lines. */
  push(line: string): ChatCommand | undefined;
  /** Inside such a text. */
  readonly open: boolean;
}

export function createLineReader(): LineReader {
  let lines: string[] | undefined;
  return {
    push(line) {
      let rest = line;
      if (!lines) {
        if (!line.trimStart().startsWith(fence)) return parseChatLine(line);
        rest = line.trimStart().slice(fence.length);
        lines = [];
      }
      const end = rest.trimEnd().endsWith(fence) ? rest.trimEnd().slice(0, -fence.length) : undefined;
      lines.push(end ?? rest);
      if (end === undefined) return undefined;
      // The lines that hold nothing but the marks are no part of the text.
      const text = lines.join("\n").replace(/^\n/, "").replace(/\n$/, "");
      lines = undefined;
      return text.trim() === "" ? { kind: "nothing" } : { kind: "say", text };
    },
    get open() {
      return lines !== undefined;
    },
  };
}

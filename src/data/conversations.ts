/** @module Conversations from JSON lines, as OpenAI's fine-tuning files have them. */
import { checkSchema, EspalierError, messageOf, z } from "../base/index.js";
import { readTextFile } from "./text.js";
import type { Conversation } from "./types.js";

const conversationSchema = z.object({
  messages: z
    .array(z.object({ role: z.string().min(1), content: z.string() }))
    .min(1)
    .describe("Turns, first to last."),
});

/** True of names that hold JSON lines, packed or not. */
export function isConversationFile(path: string): boolean {
  return /\.jsonl(\.gz)?$/i.test(path);
}

/**
 * Reads `{"messages": [{"role": "user", "content": "..."}, ...]}`, one conversation a line; other fields are left alone.
 * @throws EspalierError with the line of the first problem
 */
export async function readConversations(path: string): Promise<Conversation[]> {
  const lines = (await readTextFile(path)).split("\n");
  const conversations = lines.flatMap((line, i) => (line.trim() === "" ? [] : [parseLine(line, `${path}:${i + 1}`)]));
  if (conversations.length > 0) return conversations;
  throw new EspalierError({
    where: path,
    expected: "a conversation a line",
    found: "no lines",
    fix: "name another file",
  });
}

function parseLine(line: string, where: string): Conversation {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new EspalierError({
      where,
      expected: 'a line of JSON such as {"messages": [{"role": "user", "content": "..."}]}',
      found: messageOf(cause),
      cause,
      exitCode: 2,
    });
  }
  return checkSchema(conversationSchema, value, where);
}

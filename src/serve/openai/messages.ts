/** @module OpenAI's messages as turns. */
import { z } from "../../base/index.js";
import type { Turn } from "../chat-request.js";
import { harmless } from "../schema.js";

const textPart = z.strictObject({
  type: z.literal("text", { error: "only text is supported: no images, no sound" }),
  text: z.string(),
  cache_control: harmless,
});
const parts = z.array(textPart);

export const contentField = z
  .union([z.string(), parts])
  .transform((content) => (typeof content === "string" ? content : content.map(({ text }) => text).join("")));

const toolCall = z.strictObject({
  id: z.string().default(""),
  type: z.literal("function").default("function"),
  function: z.strictObject({ name: z.string(), arguments: z.string() }),
  index: harmless,
});

const name = z.string().optional();

const message = z.discriminatedUnion("role", [
  z.strictObject({ role: z.literal("system"), content: contentField, name }),
  z.strictObject({ role: z.literal("developer"), content: contentField, name }),
  z.strictObject({ role: z.literal("user"), content: contentField, name }),
  z.strictObject({
    role: z.literal("assistant"),
    content: contentField.nullish(),
    name,
    tool_calls: z.array(toolCall).nullish(),
    refusal: harmless,
    // Models are not shown their earlier thoughts.
    reasoning_content: harmless,
    reasoning: harmless,
  }),
  z.strictObject({ role: z.literal("tool"), content: contentField, tool_call_id: z.string(), name }),
]);

export const messagesField = z
  .array(message)
  .min(1)
  .transform((messages) => messages.map(toTurn));

function toTurn(given: z.output<typeof message>): Turn {
  const named = given.name === undefined ? {} : { name: given.name };
  const content = given.content ?? "";
  if (given.role === "tool") return { role: "tool", content, toolCallId: given.tool_call_id, ...named };
  if (given.role === "assistant") {
    const calls = given.tool_calls?.map(({ id, function: { name, arguments: text } }) => ({
      id,
      name,
      arguments: text,
    }));
    return { role: "assistant", content, ...named, ...(calls && { toolCalls: calls }) };
  }
  return { role: given.role === "user" ? "user" : "system", content, ...named };
}

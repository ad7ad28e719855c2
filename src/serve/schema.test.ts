import { expect, test } from "vitest";
import { z } from "../base/index.js";
import { parseRequest } from "./schema.js";

const schema = z.strictObject({
  model: z.string(),
  stop: z.union([z.string(), z.array(z.string())]).optional(),
  parts: z.array(z.union([z.strictObject({ kind: z.literal("a"), text: z.string() }), z.null()])).optional(),
});

const problems: [body: unknown, message: string, param: string][] = [
  [{}, "model: is missing (a string)", "model"],
  [{ model: 3 }, "model: expected string, received number", "model"],
  [{ model: "m", stop: 3 }, "stop: expected string, or expected array", "stop"],
  [{ model: "m", stop: ["a", 3] }, "stop.1: expected string, received number", "stop.1"],
  [
    { model: "m", parts: [{ kind: "a", text: "t", size: 1 }] },
    "parts.0.size: this field is not supported",
    "parts.0.size",
  ],
  [{ a: 1, b: 2, model: "m" }, "a: this field is not supported; b: this field is not supported", "a"],
];

test.each(problems)("%j", (body, message, param) => {
  expect(() => parseRequest(schema, body)).toThrow(expect.objectContaining({ message, param, status: 400 }));
});

test("null is absent, but not inside", () => {
  expect(parseRequest(schema, { model: "m", stop: null, parts: [null] })).toEqual({ model: "m", parts: [null] });
});

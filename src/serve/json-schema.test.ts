import { expect, test } from "vitest";
import { movedSchema, schemaGrammar } from "./json-schema.js";
import { callGrammar } from "./tools.js";

test("what a grammar cannot hold to names the field and the place in it", () => {
  expect(() => schemaGrammar({ type: "string", pattern: "a+" }, "format")).toThrow(/^format: .*#\/pattern/);
  expect(() => schemaGrammar("text", "format")).toThrow("format: ");
  let deep: object = { type: "null" };
  for (let i = 0; i < 60; i++) deep = { type: "array", items: deep };
  expect(schemaGrammar(deep, "format")).toMatchObject({ kind: "schema" });
});

test("references of a schema that is moved lead to where it is now", () => {
  const tree = { $defs: { node: { anyOf: [{ $ref: "#/$defs/node" }, { type: "null" }] } }, $ref: "#/$defs/node" };
  expect(movedSchema(tree, "/properties/a")).toEqual({
    $defs: { node: { anyOf: [{ $ref: "#/properties/a/$defs/node" }, { type: "null" }] } },
    $ref: "#/properties/a/$defs/node",
  });
  const parameters = { type: "object", properties: { tree: { $ref: "#/$defs/node" } }, $defs: tree.$defs };
  const tools = ["one", "two"].map((name) => ({ name, parameters }));
  expect(callGrammar(tools, "tools")).toMatchObject({
    schema: { anyOf: [{}, { properties: { name: { const: "two" } } }] },
  });
});

import { getLlama, LlamaGrammar, LlamaLogLevel } from "node-llama-cpp";
import { beforeAll, describe, expect, test } from "vitest";
import { jsonGrammar, schemaToGbnf } from "./json-schema.js";

// llama.cpp's own reader of grammars says which texts they let through.
let llama: Awaited<ReturnType<typeof getLlama>>;
beforeAll(async () => {
  llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.disabled });
});

function accepts(gbnf: string): (text: string) => boolean {
  const grammar = new LlamaGrammar(llama, { grammar: gbnf }) as unknown as { _testText(text: string): boolean };
  return (text) => grammar._testText(text);
}

const person = {
  type: "object",
  properties: {
    name: { type: "string" },
    age: { type: "integer", minimum: 0, maximum: 130 },
    note: { type: "string" },
  },
  required: ["name", "age"],
  additionalProperties: false,
};
const tree = {
  $ref: "#/$defs/node",
  $defs: {
    node: {
      type: "object",
      properties: { value: { type: "number" }, children: { type: "array", items: { $ref: "#/$defs/node" } } },
      required: ["value"],
    },
  },
};

const cases: [name: string, schema: unknown, yes: string[], no: string[]][] = [
  [
    "required and optional members, in their order",
    person,
    ['{"name":"A","age":7}', '{ "name": "A", "age": 130, "note": "x" }', '{\n  "name": "",\n  "age": 0\n}'],
    [
      '{"name":"A"}',
      '{"name":"A","age":131}',
      '{"name":"A","age":-1}',
      '{"name":"A","age":7,"x":1}',
      '{"name":"A","age":7',
    ],
  ],
  [
    "optional members alone",
    { type: "object", properties: { a: { type: "null" }, b: { type: "boolean" } } },
    ["{}", '{"a":null}', '{"b":true}', '{"a":null,"b":false}'],
    ['{"b":true,"a":null}', '{"a":null,}', '{,"b":true}', '{"c":1}'],
  ],
  [
    "members of any name",
    { type: "object", properties: { a: { type: "null" } }, required: ["a"], additionalProperties: { type: "integer" } },
    ['{"a":null}', '{"a":null,"b":1,"c":-20}'],
    ['{"b":1}', '{"a":null,"b":"x"}'],
  ],
  ["no type: anything", {}, ["1", '"a"', "[1, {}]", '{"a": [true, null]}', "-1.5e3"], ["01", "nul", "[1,]", "'a'"]],
  ["only true: anything", true, ["[]", "{}"], [""]],
  ["enum and const", { enum: ['a"b\n', 2, null] }, ['"a\\"b\\n"', "2", "null"], ['"a"', "3"]],
  ["any of", { anyOf: [{ type: "string" }, { const: 5 }] }, ['"x"', "5"], ["6", "null"]],
  ["several types", { type: ["integer", "null"] }, ["12", "-3", "null"], ["1.5", '"1"']],
  [
    "bounded lists",
    { type: "array", items: { type: "integer" }, minItems: 1, maxItems: 3 },
    ["[1]", "[1,2]", "[ 1, 2, 3 ]"],
    ["[]", "[1,2,3,4]", "[1,]"],
  ],
  [
    "lists whose first items have their own schema",
    { type: "array", prefixItems: [{ type: "string" }, { type: "boolean" }], items: { type: "integer" }, minItems: 2 },
    ['["a",true]', '["a",true,1,2]'],
    ['["a"]', "[]", '["a",true,"b"]'],
  ],
  [
    "pairs",
    { type: "array", prefixItems: [{ const: 1 }, { const: 2 }], items: false },
    ["[]", "[1]", "[1,2]"],
    ["[2]", "[1,2,2]"],
  ],
  [
    "lengths of strings",
    { type: "string", minLength: 2, maxLength: 3 },
    ['"ab"', '"é\\n€"'],
    ['"a"', '"abcd"', '"\n\n"'],
  ],
  ["dates", { type: "string", format: "date" }, ['"2026-02-29"'], ['"2026-13-01"', '"today"']],
  ["moments", { type: "string", format: "date-time" }, ['"2026-11-22T02:03:04Z"'], ['"2026-11-22"']],
  ["identifiers", { type: "string", format: "uuid" }, ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123e4567"']],
  [
    "a schema that leads to itself",
    tree,
    ['{"value":1,"children":[{"value":2.5},{"value":3,"children":[]}]}'],
    ['{"children":[]}', '{"value":1,"children":[1]}'],
  ],
  [
    "all of",
    {
      allOf: [
        { type: "object", properties: { a: { const: 1 } }, required: ["a"] },
        { properties: { b: { const: 2 } }, required: ["b"] },
      ],
    },
    ['{"a":1,"b":2}'],
    ['{"a":1}', '{"b":2}'],
  ],
  ["annotations", { type: "integer", title: "n", description: "a number", default: 1, $schema: "x" }, ["1"], ["x"]],
];

test.each(cases)("%s", (_, schema, yes, no) => {
  const accepted = accepts(schemaToGbnf(schema));
  expect(yes.filter((text) => !accepted(text))).toEqual([]);
  expect(no.filter(accepted)).toEqual([]);
});

describe("bounds of integers", () => {
  const ranges = [
    [0, 9],
    [1, 1],
    [7, 130],
    [98, 1003],
    [-15, 4],
    [-200, -99],
    [0, 999],
  ] as const;

  test.each(ranges)("%d to %d, each of them and no other", (minimum, maximum) => {
    const accepted = accepts(schemaToGbnf({ type: "integer", minimum, maximum }));
    const found: number[] = [];
    for (let n = -250; n <= 1100; n++) if (accepted(String(n))) found.push(n);
    expect([found[0], found.at(-1), found.length]).toEqual([minimum, maximum, maximum - minimum + 1]);
    for (const text of ["-0", "00", "1.0", ""]) expect(accepted(text)).toBe(false);
  });

  test("open ends, exclusive ends, and the safe integers of other libraries", () => {
    const positive = accepts(schemaToGbnf({ type: "integer", exclusiveMinimum: 0 }));
    expect(["1", "90", "123456789012345"].every(positive)).toBe(true);
    expect(["0", "-1"].some(positive)).toBe(false);
    const { MAX_SAFE_INTEGER: most } = Number;
    const any = accepts(schemaToGbnf({ type: "integer", minimum: -most, maximum: most }));
    expect(["0", "-17", "99"].every(any)).toBe(true);
    const below = accepts(schemaToGbnf({ type: "integer", exclusiveMaximum: 5 }));
    expect(["4", "-100"].every(below)).toBe(true);
    expect(below("5")).toBe(false);
  });
});

test("what a grammar cannot hold to is refused by name", () => {
  const refusals: [unknown, string][] = [
    [
      { type: "object", properties: { a: { type: "string", pattern: "^a" } } },
      "#/properties/a/pattern: expected a keyword",
    ],
    [{ type: "number", minimum: 0 }, "#/minimum"],
    [{ type: "string", format: "email" }, "#/format: expected one of the formats date, time, date-time, uuid"],
    [{ type: "strin" }, "#/type: expected one of object, array, string"],
    [{ $ref: "#/$defs/none" }, "a reference that leads somewhere, found #/$defs/none"],
    [{ $ref: "https://example.org/schema" }, "a reference into the schema itself"],
    [{ not: {} }, "#/not"],
    [{ type: "object", properties: { a: {} }, required: ["b"] }, 'found "b"'],
    [{ type: "array", minItems: -1 }, "#/minItems: expected a whole number"],
    [{ type: "integer", minimum: 3, maximum: 2 }, "bounds that leave an integer"],
    [{ enum: [] }, "#/enum: expected a list"],
    [7, "expected a schema, found 7"],
  ];
  for (const [schema, message] of refusals) expect(() => schemaToGbnf(schema)).toThrow(message);
});

test("the JSON mode lets objects through, and nothing else", () => {
  const accepted = accepts(jsonGrammar);
  expect(['{"a": [1, "b", {"c": null}]}', "{}", '{\n  "a": 1\n}'].every(accepted)).toBe(true);
  expect(["[]", "1", "{} {}", "{a: 1}", ""].some(accepted)).toBe(false);
});

import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { repositoryPath } from "../base/testing.js";
import { parseBudget, resolveBudgets } from "./budget.js";
import { childrenOf, parseRecipe, recipeJsonSchema } from "./recipe.js";

const use = { input: 512, output: 128, batch: 1 };
const minimal = { kind: "reshape", parent: "m", out: "o", budget: { params: "60%" } };

describe("recipe", () => {
  test("JSON and YAML mean the same, defaults are filled in", () => {
    const json = parseRecipe(JSON.stringify(minimal), "r.json");
    const yaml = parseRecipe("kind: reshape\nparent: m\nout: o\nbudget: { params: 60% }\n", "r.yaml");
    expect(yaml).toEqual(json);
    expect([json.length, json.targets, json.search.solutions]).toEqual([256, ["gguf", "hf"], 8]);
  });

  test("all problems are named at once, with their paths", () => {
    const text = JSON.stringify({
      ...minimal,
      budget: { params: "140%", speed: "2x" },
      length: -1,
      distil: { token: 1 },
      x: 1,
    });
    const message = messageOf(() => parseRecipe(text, "r.json"));
    for (const part of ["r.json: ", "budget", "length: ", "distil: ", '"token"', '"x"'])
      expect(message).toContain(part);
  });

  test("distillation is bounded by tokens or minutes", () => {
    const distilOf = (distil?: object) => {
      const { tokens, minutes } = parseRecipe(
        JSON.stringify({ ...minimal, ...(distil && { distil }) }),
        "r.json",
      ).distil;
      return { tokens, minutes };
    };
    expect(distilOf()).toEqual({ tokens: 400_000 });
    expect(distilOf({ minutes: 30 })).toEqual({ tokens: 0, minutes: 30 });
    expect(distilOf({ tokens: 0, minutes: 30 })).toEqual({ tokens: 0, minutes: 30 });
    expect(messageOf(() => distilOf({ tokens: 1, minutes: 30 }))).toContain("name tokens or minutes, not both");
  });

  test("broken text says where", () => {
    expect(messageOf(() => parseRecipe('{"kind": ', "r.json"))).toMatch(
      /r\.json: expected JSON or YAML, found .*line 1/,
    );
  });
});

describe("children", () => {
  const read = (fields: object) =>
    parseRecipe(JSON.stringify({ kind: "reshape", parent: "m", out: "o", ...fields }), "r");

  test("one called child, or those that are named, with what holds for all", () => {
    expect(childrenOf(read({ budget: { params: "60%" } }))).toEqual([
      { name: "child", budgets: [{ cost: "params", share: 0.6 }], text: "params 60%" },
    ]);
    const children = { small: { params: "50%" }, fast: { "latency@chat": ["2s", "80%"] } };
    const scenarios = { chat: { input: 100, output: 20, batch: 4 } };
    expect(childrenOf(read({ budget: { memory: "1GB~3%" }, children, scenarios }))).toEqual([
      {
        name: "small",
        budgets: [
          { cost: "memory", absolute: 1e9, margin: 0.03 },
          { cost: "params", share: 0.5 },
        ],
        text: "memory 1GB~3%, params 50%",
      },
      {
        name: "fast",
        budgets: [
          { cost: "memory", absolute: 1e9, margin: 0.03 },
          { cost: "latency", seconds: 2, scenario: "chat" },
          { cost: "latency", timesParent: 0.8, scenario: "chat" },
        ],
        text: "memory 1GB~3%, latency@chat 2s, latency@chat 80%",
      },
    ]);
  });

  test.each([
    [{}, "budget: name a budget, or children with theirs"],
    [{ children: {} }, "children: name at least one child"],
    [{ children: { parent: { params: "50%" } } }, "a name that the table's own rows have"],
    [{ children: { "../x": { params: "50%" } } }, "children.../x: a name has letters"],
    [{ budget: { "latency@chat": "2s" } }, 'no scenario "chat"; there are: none'],
    [{ children: { a: { "decode@x": "2x" } }, scenarios: { y: use } }, 'no scenario "x"; there are: y'],
    [{ budget: { "decode@y": "2x" }, scenarios: { y: { input: 9, output: 9 } } }, "scenarios.y.batch: "],
    [{ budget: { "params@chat": "50%" } }, "only for prefill, decode, throughput, latency"],
    [{ budget: { params: "50%~90%" } }, "a margin of more than 0 % and less than 50 %"],
    [{ budget: { decode: "0.5x" } }, "tokens a second, or at least 1x of the parent's"],
  ])("%j: %s", (fields, message) => expect(messageOf(() => read(fields))).toContain(message));
});

describe("budget", () => {
  test.each([
    ["params=80%", { cost: "params", share: 0.8 }],
    ["params=0.5x", { cost: "params", share: 0.5 }],
    ["params=100M", { cost: "params", absolute: 100e6 }],
    ["params=1.2B", { cost: "params", absolute: 1.2e9 }],
    ["params=12345", { cost: "params", absolute: 12345 }],
    ["memory=300MiB", { cost: "memory", absolute: 300 * 2 ** 20 }],
    ["memory=2GB", { cost: "memory", absolute: 2e9 }],
  ])("%s", (text, expected) => expect(parseBudget(text)).toEqual(expected));

  test.each([
    "params",
    "params=",
    "speed=2x",
    "params=120%",
    "params=0%",
    "params=5 parsecs",
    "memory=-1MiB",
    "params=80%=3",
  ])("refuses %s", (text) => expect(() => parseBudget(text)).toThrow(/--budget: expected/));

  test("the tightest of several bounds on one cost holds", () => {
    const parent = { params: 1000, memory: 0 };
    const bounds = resolveBudgets(["params=50%", "params=400", "memory=10KiB"].map(parseBudget), parent, () => use);
    expect(bounds).toEqual({ params: 400, memory: 10240 });
  });

  test("speeds become seconds, with their margin, by scenario", () => {
    const parent = { decode: 0.02, prefill: 2, "latency@chat": 8 };
    const texts = ["decode=1.25x", "decode=40tok/s~5%", "prefill=512", "latency@chat=50%~10%"];
    const bounds = resolveBudgets(texts.map(parseBudget), parent, () => use);
    // 1 / 40 s and a twentieth more is longer than 0.02 / 1.25 s, so the latter holds.
    expect(bounds).toEqual({ decode: 0.016, prefill: 1, "latency@chat": expect.closeTo(4.4, 12) });
  });
});

function messageOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    return (error as Error).message;
  }
  return "";
}

test("schemas/recipe.schema.json is the schema that recipes are checked with (npm run schemas writes it)", () => {
  const written: unknown = JSON.parse(readFileSync(repositoryPath("schemas/recipe.schema.json"), "utf8"));
  expect(written).toEqual(JSON.parse(JSON.stringify(recipeJsonSchema())));
});

const recipes = readdirSync(repositoryPath("recipes")).map((name) => {
  const text = readFileSync(repositoryPath(`recipes/${name}`), "utf8");
  return { name, text, kind: (JSON.parse(text) as { kind: string }).kind };
});

test.each(recipes.filter(({ kind }) => kind !== "train"))("recipes/$name passes the check", ({ name, text }) => {
  expect(parseRecipe(text, name).kind).toBe("reshape");
});

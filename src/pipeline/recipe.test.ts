import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { repositoryPath } from "../base/testing.js";
import { parseBudget, resolveBudgets } from "./budget.js";
import { parseRecipe, recipeJsonSchema } from "./recipe.js";

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
    const bounds = resolveBudgets(["params=50%", "params=400", "memory=10KiB"].map(parseBudget), {
      params: 1000,
      memory: 0,
    });
    expect(bounds).toEqual({ params: 400, memory: 10240 });
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

test.each(readdirSync(repositoryPath("recipes")))("recipes/%s passes the check", (name) => {
  const text = readFileSync(repositoryPath(`recipes/${name}`), "utf8");
  expect(parseRecipe(text, name).kind).toBe("reshape");
});

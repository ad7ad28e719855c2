import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../base/testing.js";
import { gqa, linear, none, swiglu, testConfig } from "../models/testing.js";
import {
  type CostTable,
  checkCostTable,
  checkCostUse,
  costTableJsonSchema,
  parseSpeedBudget,
  readCostTable,
  shownSpeed,
  speedBound,
  speedCosts,
  totalCost,
} from "./index.js";

const config = testConfig();
const seconds = (mean: number) => ({ mean, low: mean, high: mean, n: 5 });
/** Prompts of 100 and 300 tokens; decoding at depths 100 and 200 for one sequence and for four. */
const times = (prefill: number, decode: number, byDepth = 0) => ({
  prefill: [
    { tokens: 100, seconds: seconds(prefill) },
    { tokens: 300, seconds: seconds(3 * prefill) },
  ],
  decode: [1, 4].flatMap((batch) =>
    [100, 200].map((depth) => ({ batch, depth, seconds: seconds(batch * (decode + byDepth * depth)) })),
  ),
});

const { hiddenSize, heads, headDim, vocabSize } = config;
const table: CostTable = {
  kind: "espalier-costs",
  espalier: "0.1.0",
  machine: { processor: "a processor", threads: 8, memoryBytes: 2 ** 34, platform: "linux x64" },
  versions: { "llama.cpp": "v0.5.0", "node-llama-cpp": "3.22.1" },
  type: "q8_0",
  parent: { hiddenSize, heads, headDim, vocabSize },
  shapes: [
    { part: "attention", id: "gqa 4", config: { kind: "gqa", kvHeads: 4 }, ...times(0.04, 0.004, 1e-5) },
    { part: "attention", id: "linear", config: { kind: "linear" }, ...times(0.01, 0.001) },
    { part: "ffn", id: "swiglu 64", config: { kind: "swiglu", width: 64 }, ...times(0.064, 0.0064) },
    { part: "ffn", id: "swiglu 128", config: { kind: "swiglu", width: 128 }, ...times(0.128, 0.0128) },
    { part: "ffn", id: "linear", config: { kind: "linear" }, ...times(0.01, 0.001) },
  ],
  filler: times(0.032, 0.0032),
  fixed: times(0.2, 0.02),
};
const scenario = { input: 100, output: 100, batch: 1 };

describe("costs of a scenario", () => {
  const costs = speedCosts(table, scenario);
  const parent = Array.from({ length: 3 }, () => ({ attention: gqa(4), ffn: swiglu(64) }));

  test("are sums over the blocks", () => {
    expect(totalCost(costs.prefill, parent)).toBeCloseTo(0.2 + 3 * (0.04 + 0.064), 12);
    // The mean depth is 150.
    const step = 0.02 + 3 * (0.004 + 150e-5 + 0.0064);
    expect(totalCost(costs.decode, parent)).toBeCloseTo(step, 12);
    expect(totalCost(costs.latency, parent)).toBeCloseTo(0.2 + 3 * 0.104 + 100 * step, 12);
    expect(totalCost(costs.throughput, parent)).toBeCloseTo((0.2 + 3 * 0.104) / 100 + step, 12);
  });

  test("count a batch's prompts one after the other, and its tokens together", () => {
    const four = speedCosts(table, { ...scenario, batch: 4 });
    const [prefill, step] = [0.2 + 0.104, 4 * (0.02 + 0.004 + 150e-5 + 0.0064)];
    const blocks = parent.slice(0, 1);
    expect(totalCost(four.prefill, blocks)).toBeCloseTo(prefill, 12);
    expect(totalCost(four.decode, blocks)).toBeCloseTo(step, 12);
    expect(totalCost(four.latency, blocks)).toBeCloseTo(4 * prefill + 100 * step, 12);
    expect(totalCost(four.throughput, blocks)).toBeCloseTo((4 * prefill + 100 * step) / 400, 12);
  });

  test("nothing costs nothing; linear halves and attention alone carry what files put beside them", () => {
    expect(costs.prefill.block({ attention: none, ffn: none })).toBe(0);
    expect(costs.prefill.block({ attention: none, ffn: swiglu(64) })).toBeCloseTo(0.064, 12);
    expect(costs.prefill.block({ attention: gqa(4), ffn: none })).toBeCloseTo(0.04 + 0.032, 12);
    expect(costs.prefill.block({ attention: none, ffn: linear })).toBeCloseTo(0.01 + 0.032, 12);
    expect(costs.prefill.block({ attention: gqa(4), ffn: linear })).toBeCloseTo(0.04 + 0.01 + 2 * 0.032, 12);
    expect(costs.prefill.block({ attention: linear, ffn: swiglu(64) })).toBeCloseTo(0.01 + 0.064, 12);
  });

  test("lie on lines between measured widths, prompts and depths", () => {
    expect(costs.prefill.block({ attention: none, ffn: swiglu(96) })).toBeCloseTo(0.096, 12);
    expect(costs.prefill.block({ attention: none, ffn: swiglu(48) })).toBeCloseTo(0.048, 12);
    const longer = speedCosts(table, { input: 150, output: 10, batch: 1 });
    expect(longer.prefill.fixed).toBeCloseTo(0.3, 12);
    expect(longer.decode.block({ attention: gqa(4), ffn: none })).toBeCloseTo(0.004 + 155e-5 + 0.0032, 12);
  });

  test("widths that differ from the line through all by no more than their noise lie on it, others stay", () => {
    const noisy = (width: number, mean: number, half: number) => {
      const value = { mean, low: mean - half, high: mean + half, n: 5 };
      return {
        part: "ffn" as const,
        id: `swiglu ${width}`,
        config: { kind: "swiglu" as const, width },
        prefill: [{ tokens: 100, seconds: value }],
        decode: [100, 200].map((depth) => ({ batch: 1, depth, seconds: value })),
      };
    };
    const attention = { prefill: [{ tokens: 100, seconds: seconds(1) }], decode: noisy(1, 1, 0).decode };
    const shapes: CostTable["shapes"] = [
      { part: "attention", id: "gqa 4", config: { kind: "gqa", kvHeads: 4 }, ...attention },
      noisy(64, 66, 3),
      noisy(96, 93, 4),
      noisy(128, 300, 1e3),
      noisy(160, 160, 0.01),
      noisy(192, 250, 1),
    ];
    const { part: _part, id: _id, config: _config, ...filler } = noisy(32, 32, 0.01);
    const own = speedCosts({ ...table, shapes, filler }, scenario).decode;
    const costOf = (width: number) => own.block({ attention: none, ffn: swiglu(width) });
    // The two sure points, at 32 and 160, hold the line at one second a channel.
    for (const width of [64, 96, 128]) expect(costOf(width) / width).toBeCloseTo(1, 2);
    expect(costOf(192)).toBe(250);
  });

  test("a time below nothing, which only noise brings about, counts as nothing", () => {
    const [first, ...rest] = table.shapes;
    const noisy = { ...table, shapes: [{ ...first!, ...times(-0.01, -0.001) } as typeof first, ...rest] } as CostTable;
    expect(speedCosts(noisy, scenario).decode.block({ attention: gqa(4), ffn: swiglu(64) })).toBeCloseTo(0.0064, 12);
  });

  test("what was not measured is named, with the command that measures it", () => {
    expect(() => costs.decode.block({ attention: gqa(2), ffn: none })).toThrow(
      'costs: expected the attention half "gqa 2", found attention gqa 4, attention linear',
    );
    expect(() => costs.decode.block({ attention: none, ffn: swiglu(256) })).toThrow('the ffn half "swiglu 256"');
    const at = (asked: Partial<typeof scenario>) => () =>
      totalCost(speedCosts(table, { ...scenario, ...asked }).latency, parent);
    expect(at({ batch: 8 })).toThrow("--input 100 --output 100 --batch 8");
    expect(at({ output: 400 })).toThrow("decoding at depths 100 to 500 in batches of 1");
    expect(at({ input: 50, output: 10 })).toThrow("prompts of 50 tokens, found 100, 300 tokens");
  });
});

describe("a file of costs", () => {
  const use = { config, type: "q8_0", where: "costs.json" } as const;
  const versions = { espalier: "0.1.0", "llama.cpp": "v0.5.0", "node-llama-cpp": "3.22.1" };

  test("is read as it was written", async () => {
    const path = join(temporaryDirectory(), "costs.json");
    writeFileSync(path, JSON.stringify({ ...table, later: "a field of a later version" }));
    expect(await readCostTable(path)).toEqual(table);
  });

  test("problems are named with their paths", () => {
    const { versions: _, ...lacking } = table;
    expect(() => checkCostTable({ ...lacking, type: "q5_k" }, "costs.json")).toThrow(
      /2 problems\n {2}versions.*\n {2}type/,
    );
  });

  test("is refused where it was measured for something else", () => {
    expect(checkCostUse(table, { ...use, versions })).toEqual([]);
    expect(() => checkCostUse(table, { ...use, type: "f16" })).toThrow("expected costs in f16, found costs in q8_0");
    const wider = testConfig({ hiddenSize: 64 });
    expect(() => checkCostUse(table, { ...use, config: wider })).toThrow("hiddenSize 64, found hiddenSize 32");
    const newer = { ...use, versions: { ...versions, "llama.cpp": "v0.6.0" } };
    expect(() => checkCostUse(table, newer)).toThrow(
      "expected costs measured with llama.cpp v0.6.0, found llama.cpp v0.5.0",
    );
    expect(checkCostUse(table, { ...use, processor: "another" })).toEqual([
      "costs of another machine: a processor, 8 threads",
    ]);
  });

  test("schemas/costs.schema.json is the schema that files are checked with (npm run schemas writes it)", () => {
    const written: unknown = JSON.parse(readFileSync(repositoryPath("schemas/costs.schema.json"), "utf8"));
    expect(written).toEqual(JSON.parse(JSON.stringify(costTableJsonSchema())));
  });
});

describe("speed budgets", () => {
  test.each([
    ["decode", "1.5x", 0.02],
    ["decode", "150%", 0.02],
    ["decode", "40", 1 / 40],
    ["decode", "40tok/s", 1 / 40],
    ["prefill", "2000", 100 / 2000],
    ["throughput", "200 t/s", 1 / 200],
    ["latency", "2s", 2],
    ["latency", "250ms", 0.25],
    ["latency", "80%", 0.024],
    ["latency", "0.8x", 0.024],
  ] as const)("%s=%s, the parent taking 0.03 s, allows %d s", (cost, value, bound) => {
    expect(speedBound(parseSpeedBudget(cost, value), 0.03, scenario)).toBeCloseTo(bound, 12);
  });

  test.each([
    ["decode", "0.9x"],
    ["decode", "2s"],
    ["latency", "1.2x"],
    ["latency", "2"],
    ["prefill", "0"],
    ["throughput", "fast"],
  ] as const)("%s=%s is refused with an example", (cost, value) => {
    expect(() => parseSpeedBudget(cost, value)).toThrow(`found "${cost}=${value}"; for example ${cost}=`);
  });

  test("are shown as rates, latency in seconds", () => {
    expect(shownSpeed("decode", 0.025, scenario)).toBe(40);
    expect(shownSpeed("prefill", 0.05, scenario)).toBe(2000);
    expect(shownSpeed("latency", 2, scenario)).toBe(2);
  });
});

import { describe, expect, test } from "vitest";
import { ignoreEvents } from "../base/index.js";
import { repositoryPath, temporaryDirectory } from "../base/testing.js";
import { type BlockConfig, openModel } from "../models/index.js";
import { gqa, linear, none, swiglu, testConfig } from "../models/testing.js";
import { checkCostTable, speedCosts, totalCost } from "../plan/index.js";
import { buildSpace } from "../puzzle/index.js";
import { fewBlocks, halfUnit } from "./block-files.js";
import { type MeasureCostsRequest, measureCosts } from "./block-speeds.js";
import { anchorOf, doubtsOf, perCopy, scaled } from "./block-times.js";
import { openStore } from "./store.js";
import { fakeLlama } from "./testing.js";

const config = testConfig({ blocks: Array.from({ length: 4 }, () => ({ attention: gqa(4), ffn: swiglu(128) })) });
const scenario = { input: 64, output: 32, batch: 1 };

function requestOf(changes: Partial<MeasureCostsRequest> = {}): MeasureCostsRequest {
  return {
    config,
    space: buildSpace(config, { ffnFractions: [1, 0.5] }),
    scenarios: [scenario],
    repeats: 2,
    store: openStore(temporaryDirectory()),
    onEvent: ignoreEvents,
    signal: new AbortController().signal,
    ...changes,
  };
}

describe("many copies less few", () => {
  test("a round is one copy's share of what many take more", () => {
    expect(
      perCopy(
        [
          [10, 12],
          [4, 4],
        ],
        2,
      ),
    ).toEqual([3, 4]);
    expect(perCopy([[10, 12]], 0)).toEqual([10, 12]);
  });

  test("the parent gives the level: what its blocks take more than the few, over what the copies say", () => {
    const interval = (mean: number) => ({ mean, low: mean, high: mean, n: 2 });
    const times = (prefill: number, decode: number) => ({
      prefill: [{ tokens: 64, seconds: interval(prefill) }],
      decode: [{ batch: 1, depth: 64, seconds: interval(decode) }],
    });
    // Fixed costs of 5; blocks of 1 + 2 by their copies that really take 1.5 (prompt) and 2 (step) times as long.
    const halves = (blocks: number) => Array.from({ length: blocks }, () => [times(1, 1), times(2, 2)]).flat();
    const whole = { few: times(5 + 2 * 4.5, 5 + 2 * 6), whole: times(5 + 4 * 4.5, 5 + 4 * 6) };
    const anchor = anchorOf(whole, [halves(2), halves(4)]);
    expect(anchor).toEqual({ prefill: 1.5, decode: 2 });
    expect(scaled(times(2, 2), anchor)).toEqual(times(3, 4));
    expect(anchorOf(whole, [halves(4), halves(4)])).toEqual({ prefill: 1, decode: 1 });
    expect(anchorOf({ few: whole.whole, whole: whole.few }, [halves(2), halves(4)])).toEqual({ prefill: 1, decode: 1 });
  });

  test("give every half its own seconds, and the rest is fixed", async () => {
    const { timer } = fakeLlama();
    const { table } = await measureCosts(requestOf({ llama: timer }));
    const at = (part: string, id: string) => table.shapes.find((shape) => shape.part === part && shape.id === id)!;
    expect(at("attention", "gqa 4").decode[0]!.seconds.mean).toBeCloseTo(0.014 + 64 * 4e-5, 9);
    expect(at("attention", "gqa 4").decode[1]!.seconds.mean).toBeCloseTo(0.014 + 96 * 4e-5, 9);
    expect(at("attention", "gqa 1").prefill[0]!.seconds.mean).toBeCloseTo(64 * 0.011, 9);
    expect(at("attention", "linear").decode[0]!.seconds.mean).toBeCloseTo(0.004, 9);
    expect(at("ffn", "swiglu 64").decode.map(({ seconds }) => seconds.mean)).toEqual(
      [0.0064, 0.0064].map((x) => expect.closeTo(x, 9)),
    );
    expect(at("ffn", "linear").prefill[0]!.seconds.mean).toBeCloseTo(64 * 0.004, 9);
    expect(table.filler.decode[0]!.seconds.mean).toBeCloseTo(0.0032, 9);
    expect(table.fixed.prefill[0]!.seconds.mean).toBeCloseTo(64 * (0.5 + 1e-5 * 512), 9);
    expect(doubtsOf(table)).toEqual([]);
    expect(checkCostTable(JSON.parse(JSON.stringify(table)), "costs")).toEqual(table);
  });

  test("predict whole models of a machine whose times are sums", async () => {
    const { timer } = fakeLlama();
    const uneven: BlockConfig[] = [
      { attention: gqa(4), ffn: linear },
      { attention: none, ffn: swiglu(64) },
      { attention: linear, ffn: swiglu(96) },
      { attention: gqa(1), ffn: none },
    ];
    const { table, whole } = await measureCosts(requestOf({ llama: timer, whole: { parent: config.blocks, uneven } }));
    const costs = speedCosts(table, scenario);
    for (const [name, blocks] of Object.entries({ parent: config.blocks, uneven })) {
      const [start, end] = whole[name]!.decode.map(({ seconds }) => seconds.mean);
      // The linear feed-forward's own filler is not needed where a feed-forward follows it.
      const spare = name === "uneven" ? 0.0032 : 0;
      expect(totalCost(costs.decode, blocks)).toBeCloseTo((start! + end!) / 2 + spare, 9);
      expect(totalCost(costs.prefill, blocks)).toBeCloseTo(whole[name]!.prefill[0]!.seconds.mean + 64 * spare, 9);
    }
  });

  test("of a parent whose layers differ are those of its commonest whole block, and of every half", async () => {
    const { timer } = fakeLlama();
    const blocks: BlockConfig[] = [
      { attention: gqa(4), ffn: swiglu(64) },
      ...Array.from({ length: 3 }, () => ({ attention: none, ffn: swiglu(32) })),
      { attention: gqa(2), ffn: swiglu(96) },
      { attention: gqa(2), ffn: swiglu(96) },
    ];
    const parent = testConfig({ blocks });
    const space = buildSpace(parent, { ffnFractions: [1], fewerKvHeads: false, linear: false, none: false });
    const { table } = await measureCosts(requestOf({ llama: timer, config: parent, space }));
    expect(table.shapes.map(({ id }) => id)).toEqual(["gqa 2", "gqa 4", "swiglu 96", "swiglu 64", "swiglu 32"]);
    expect(table.fixed.decode[0]!.seconds.mean).toBeCloseTo(0.5 + 1e-5 * 512, 9);
  });

  test("measure again only what is missing", async () => {
    const { timer, calls } = fakeLlama();
    const request = requestOf({ llama: timer });
    const first = await measureCosts(request);
    expect(await measureCosts(request)).toEqual({ ...first, artifact: { ...first.artifact, cached: true } });
    expect(calls).toHaveLength(1);
    const { table } = await measureCosts({ ...request, space: buildSpace(config, { ffnFractions: [1, 0.5, 0.75] }) });
    expect(calls[1]).toEqual(["ffn-swiglu-96-many.gguf", "ffn-swiglu-96-few.gguf"]);
    expect(table.fixed).toEqual(first.table.fixed);
    await measureCosts({ ...request, scenarios: [scenario, { ...scenario, batch: 4 }] });
    expect(calls[2]).toHaveLength(calls[0]!.length);
  });
});

describe("copies", () => {
  const large = testConfig({
    hiddenSize: 2048,
    heads: 32,
    headDim: 64,
    vocabSize: 128_256,
    blocks: Array.from({ length: 16 }, () => ({ attention: gqa(8), ffn: swiglu(8192) })),
  });
  const options = { type: "q8_0", cacheBytes: 2 ** 25 } as const;

  test("of a parent that is larger than the cache: neither many nor few fit in it", () => {
    const { copies, bytes } = halfUnit(large, { part: "attention", config: gqa(8) }, options);
    expect(copies).toBeGreaterThan(2);
    expect(bytes).toBeGreaterThan(3 * options.cacheBytes);
    expect(fewBlocks(large, options)).toBe(2);
  });

  test("of a half too small to fill the cache stand beside wide feed-forwards, in both files", () => {
    const { files } = halfUnit(large, { part: "ffn", config: swiglu(32) }, options);
    const wide = files.map(({ config: { blocks } }) =>
      blocks.filter(({ ffn }) => ffn.kind === "swiglu" && ffn.width === 8192),
    );
    expect(wide[0]!.length).toBe(wide[1]!.length);
    expect(wide[0]!.length).toBe(1);
  });
});

test("stories260K in llama.cpp: every half of its space, at both depths of both scenarios", async () => {
  const model = await openModel(repositoryPath("models/stories260K"));
  const { config: stories } = model;
  await model.close();
  const space = buildSpace(stories, { targets: ["gguf"], ffnFractions: [1, 0.5] });
  const scenarios = [scenario, { input: 16, output: 8, batch: 3 }];
  const request = { config: stories, space, scenarios, sampleSeconds: 0.002, whole: { parent: stories.blocks } };
  const { table, whole } = await measureCosts(requestOf(request));
  expect(table.shapes.map(({ part, id }) => `${part} ${id}`)).toEqual([
    "attention gqa 4",
    "attention gqa 2",
    "attention gqa 1",
    "attention linear",
    "ffn swiglu 172",
    "ffn swiglu 88",
    "ffn linear",
  ]);
  for (const { prefill, decode } of table.shapes) {
    expect(prefill.map(({ tokens }) => tokens)).toEqual([64, 16]);
    expect(decode.map(({ batch, depth }) => [batch, depth])).toEqual([
      [1, 64],
      [1, 96],
      [3, 16],
      [3, 24],
    ]);
    for (const { seconds } of [...prefill, ...decode]) {
      expect(seconds.n).toBe(2);
      expect(Number.isFinite(seconds.mean)).toBe(true);
    }
  }
  for (const { seconds } of [...whole.parent!.prefill, ...whole.parent!.decode])
    expect(seconds.mean).toBeGreaterThan(0);
  expect(table.machine.threads).toBe(1);
}, 60_000);

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { type Event, ignoreEvents } from "../base/index.js";
import { repositoryPath, temporaryDirectory } from "../base/testing.js";
import { openModel } from "../models/index.js";
import { speedCosts, totalCost } from "../plan/index.js";
import { buildSpace, type RunResult } from "../puzzle/index.js";
import { measureCosts } from "./block-speeds.js";
import { checkRecipe } from "./recipe.js";
import { reshape } from "./reshape.js";
import { openStore } from "./store.js";
import { fakeLlama } from "./testing.js";

const root = temporaryDirectory();
const parent = repositoryPath("models/stories260K");
const scenario = { input: 32, output: 8, batch: 1 };

/** Costs of a machine whose times are sums, so that speeds are as sure as parameters. */
async function measuredElsewhere() {
  const model = await openModel(parent);
  const { table } = await measureCosts({
    config: model.config,
    space: buildSpace(model.config, { ffnFractions: [1, 0.5] }),
    type: "f16",
    scenarios: [scenario],
    repeats: 2,
    llama: fakeLlama().timer,
    store: openStore(join(root, "measured")),
    onEvent: ignoreEvents,
    signal: new AbortController().signal,
  });
  await model.close();
  writeFileSync(join(root, "costs.json"), JSON.stringify(table));
  return { table, blocks: model.config.blocks };
}

async function run(children: Record<string, Record<string, string>>) {
  const toy = JSON.parse(readFileSync(repositoryPath("recipes/toy.json"), "utf8"));
  const events: Event[] = [];
  const { budget: _, ...shared } = toy;
  const changes = {
    parent,
    out: join(root, "out"),
    children,
    ...scenario,
    costs: { file: join(root, "costs.json"), anyVersion: true },
    blocks: { tokens: "auto" },
    distil: { tokens: 1280, batch: 2 },
    baselines: ["greedy"],
  };
  const { result } = await reshape(checkRecipe({ ...shared, ...changes }, "recipe"), {
    store: join(root, "store"),
    threads: 1,
    onEvent: (event) => events.push(event),
  });
  const made = events.flatMap((event) => (event.event === "stage-end" && !event.cached ? [event.stage] : []));
  return { children: result.children!, made, events };
}

type Children = NonNullable<RunResult["children"]>;
let children: Children;
let made: string[];
let costs: Awaited<ReturnType<typeof measuredElsewhere>>;
beforeAll(async () => {
  costs = await measuredElsewhere();
  ({ children, made } = await run({ small: { params: "80%" }, fast: { decode: "1.2x" } }));
}, 120_000);

test("each child meets its own bound, by the costs of the machine that it is for", () => {
  const [small, fast] = children as [Children[number], Children[number]];
  const { decode } = speedCosts(costs.table, scenario);
  expect([small.name, fast.name]).toEqual(["small", "fast"]);
  expect(small.child.parameters).toBeLessThanOrEqual(0.8 * 260_032);
  const seconds = totalCost(decode, fast.child.blocks as typeof costs.blocks);
  expect(seconds).toBeLessThanOrEqual(totalCost(decode, costs.blocks) / 1.2);
  expect(fast.search.totals!.decode).toBeCloseTo(seconds, 12);
});

test("calibration, library, probe and scores are made once; what a child needs, for each", () => {
  for (const stage of ["calibrate", "variants", "capture", "probe", "score"]) {
    expect(made.filter((name) => name === stage)).toEqual([stage]);
  }
  for (const stage of ["search/small", "search/fast", "realise/small", "realise/fast greedy", "distil/fast"]) {
    expect(made.filter((name) => name === stage)).toEqual([stage]);
  }
});

test("only the best baseline is distilled, and all are compared before", () => {
  for (const { baselines, child } of children) {
    expect(baselines.filter(({ distilled }) => distilled)).toHaveLength(1);
    for (const { klBeforeDistillation, klAboveChildBeforeDistillation } of baselines) {
      const apart = klBeforeDistillation!.mean - child.klBeforeDistillation.mean;
      expect(klAboveChildBeforeDistillation!.mean).toBeCloseTo(apart, 9);
    }
  }
});

test("every child has its report, and one page shows them together", () => {
  for (const { name, report } of children) {
    expect(report).toBe(join(root, "out", name, "report.html"));
    expect(existsSync(report)).toBe(true);
  }
  const page = readFileSync(join(root, "out", "report.html"), "utf8");
  expect(page).toContain("small/report.html");
  expect(page).toContain("fast/report.html");
});

test("another budget finds all that does not depend on it", async () => {
  const again = await run({ small: { params: "80%" }, tiny: { params: "60%" } });
  expect(again.children[0]!.child.kl).toEqual(children[0]!.child.kl);
  const shared = /^(prepare|calibrate|variants|starts|capture|probe|score|evaluate\/parent|\w+\/small.*)$/;
  expect(again.made.filter((stage) => shared.test(stage))).toEqual([]);
  expect(again.made).toContain("search/tiny");
}, 120_000);

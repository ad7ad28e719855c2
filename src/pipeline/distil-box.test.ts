import { describe, expect, test } from "vitest";
import { meanInterval } from "../base/index.js";
import { boxOf, choosePoint, createPace, type DistilPoint, parseDistill } from "./distil-box.js";

describe("--distill", () => {
  test.each([
    ["90s", { minutes: 1.5 }],
    ["30m", { minutes: 30 }],
    ["30 min", { minutes: 30 }],
    ["1.5h", { minutes: 90 }],
    ["400K", { tokens: 400_000 }],
    ["400ktokens", { tokens: 400_000 }],
    ["1M", { tokens: 1_000_000 }],
    ["1m tokens", { tokens: 1_000_000 }],
    ["2.5M tokens", { tokens: 2_500_000 }],
    ["250000", { tokens: 250_000 }],
    ["0", { tokens: 0 }],
    ["0m", { tokens: 0 }],
  ])("%s", (text, bound) => {
    expect(parseDistill(text)).toEqual(bound);
  });

  test.each(["", "m", "-5m", "30x", "30H", "5 minutes or so", "1e5", "0.2 tokens"])("refuses %j", (text) => {
    expect(() => parseDistill(text)).toThrow("--distill: expected a time such as 90s, 30m or 2h, tokens such as 400K");
  });
});

describe("a box", () => {
  const measured = { minutes: 10, secondsPerStep: 2, secondsPerPoint: 15, secondsSpent: 40 };

  test("holds the steps that fit beside the measurements", () => {
    expect(boxOf(measured, 4)).toEqual({ ...measured, steps: (600 - 40 - 60) / 2 });
    expect(boxOf({ ...measured, minutes: 0.5 }, 4).steps).toBe(1);
  });

  test("says once when steps turn out slower, and takes them all", () => {
    const box = boxOf(measured, 4);
    const said: string[] = [];
    let clock = 0;
    const pace = createPace(
      () => clock,
      (message) => said.push(message),
    );
    const steps = (count: number, milliseconds: number) => {
      for (let i = 0; i < count; i++) {
        clock += milliseconds;
        pace.step(box);
        clock += 1e6; // a measurement, which is no part of a step
        pace.start();
      }
    };
    steps(1, 60_000); // compiles
    steps(40, 2_100);
    expect(said).toEqual([]);
    steps(60, 3_000);
    expect(said).toEqual([
      "steps take 2.22 s where 2.00 s were measured: all 250 are taken, in about 11.1 minutes in place of 10",
    ]);
  });
});

describe("the state that is kept", () => {
  const point = (step: number, klBySequence: number[]): DistilPoint => ({
    step,
    tokens: 100 * step,
    kl: meanInterval(klBySequence),
    klBySequence,
  });

  test("is the last one where it is best", () => {
    const points = [point(0, [3, 4, 5]), point(5, [2, 3, 4]), point(10, [1, 2, 3])];
    expect(choosePoint(points)).toEqual({ kept: points[2] });
  });

  test("is the last one where an earlier one is better within noise", () => {
    const points = [point(0, [3, 4, 5]), point(5, [1, 2.2, 2.7]), point(10, [1.1, 2, 3])];
    expect(choosePoint(points).kept.step).toBe(10);
  });

  test("is an earlier one where the paired interval excludes zero, wide as the sequences' own spread may be", () => {
    const points = [point(0, [3, 9, 30]), point(5, [1, 8, 28]), point(10, [1.2, 8.21, 28.19])];
    const { kept, worseThanKept } = choosePoint(points);
    expect(kept.step).toBe(5);
    expect(worseThanKept!.mean).toBeCloseTo(0.2, 10);
    expect(worseThanKept!.low).toBeGreaterThan(0);
  });

  test("may be the start", () => {
    const points = [point(0, [1, 2, 3]), point(5, [2, 3, 4]), point(10, [1.5, 2.5, 3.5])];
    expect(choosePoint(points).kept.step).toBe(0);
  });
});

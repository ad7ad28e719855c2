import { describe, expect, test } from "vitest";
import { positionsFrom, rotaryFrequencies, rotaryTables } from "./rotary.js";

describe("rotary frequencies", () => {
  test("theta^(-2i/D)", () => {
    expect([...rotaryFrequencies({ headDim: 4, rope: { theta: 10000 } })]).toEqual([1, 0.01]);
  });

  test("linear scaling divides all of them", () => {
    const rope = { theta: 10000, scaling: { type: "linear" as const, factor: 4 } };
    expect([...rotaryFrequencies({ headDim: 4, rope })]).toEqual([0.25, 0.0025]);
  });

  test("llama3 keeps fast waves, stretches slow ones and blends between", () => {
    // Llama 3.1: factor 8, low 1, high 4, 8192 positions, theta 500000, head 128.
    const scaling = {
      type: "llama3" as const,
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositions: 8192,
    };
    const plain = rotaryFrequencies({ headDim: 128, rope: { theta: 500000 } });
    const scaled = rotaryFrequencies({ headDim: 128, rope: { theta: 500000, scaling } });
    expect(scaled[0]).toBe(plain[0]); // wavelength 6.3 < 8192 / 4
    expect(scaled[63]).toBeCloseTo(plain[63]! / 8, 15); // wavelength 2.6e6 > 8192 / 1
    // i = 32: frequency 500000^-0.5 = 1.41421e-3, wavelength 4442.9: smooth = (8192/4442.9 - 1) / 3 = 0.2813
    const smooth = ((8192 * plain[32]!) / (2 * Math.PI) - 1) / 3;
    expect(smooth).toBeCloseTo(0.2813, 4);
    expect(scaled[32]).toBeCloseTo((1 - smooth) * (plain[32]! / 8) + smooth * plain[32]!, 15);
  });
});

test("tables hold one position per row, packed positions may restart", () => {
  const { cos, sin } = rotaryTables({ headDim: 4, rope: { theta: 100 } }, [0, 1, 0]);
  expect(cos.shape).toEqual([1, 3, 2]);
  expect(rotaryTables({ headDim: 4, rope: { theta: 100 } }, [0, 1, 0, 1], 2).cos.shape).toEqual([2, 2, 2]);
  const f = Math.fround;
  expect([...cos.data]).toEqual([1, 1, f(Math.cos(1)), f(Math.cos(0.1)), 1, 1]);
  expect([...sin.data]).toEqual([0, 0, f(Math.sin(1)), f(Math.sin(0.1)), 0, 0]);
  expect([...positionsFrom(3, 2)]).toEqual([3, 4]);
});

import { describe, expect, test } from "vitest";
import { activeParameters } from "./active-parameters.js";
import { findInCatalogue } from "./catalogue.js";
import { findGpu } from "./gpus.js";
import { publishedThroughput } from "./published-throughput.js";
import { bestServerSpeed, dividesHeads, serverSpeed } from "./server-speed.js";

const shapeOf = (name: string) => findInCatalogue(name)!.shape;
const h100 = findGpu("H100 SXM");

describe("a server's tokens a second", () => {
  test.each(publishedThroughput)(
    "$input in, $output out: within 26 % of what is published",
    ({ input, output, child, parent }) => {
      for (const [model, published] of [
        ["llama-3.1-nemotron-51b", child],
        ["llama-3.1-70b", parent],
      ] as const) {
        const speed = serverSpeed(shapeOf(model), { type: "fp8", input, output }, h100, published.tensorParallel)!;
        expect(Math.abs(speed.tokensPerSecondPerGpu / published.tokensPerSecondPerGpu - 1)).toBeLessThan(0.265);
      }
    },
  );

  test("a model that does not fit has none", () => {
    expect(serverSpeed(shapeOf("llama-3.1-70b"), { type: "bf16", input: 128, output: 128 }, h100, 1)).toBeUndefined();
    const best = bestServerSpeed(shapeOf("llama-3.1-70b"), { type: "bf16", input: 128, output: 128 }, h100)!;
    expect(best.tensorParallel).toBeGreaterThan(1);
    expect(best.weightBytesPerGpu * best.tensorParallel).toBe(2 * 70_553_706_496);
  });

  test("heads are dealt out whole", () => {
    expect([1, 2, 4, 8].map((count) => dividesHeads(shapeOf("smollm2-135m"), count))).toEqual([
      true,
      false,
      false,
      false,
    ]);
    expect([1, 2, 4, 8].every((count) => dividesHeads(shapeOf("llama-3.1-70b"), count))).toBe(true);
  });

  test("a GPU without a rate is named", () => {
    const use = { type: "fp8", input: 128, output: 128 } as const;
    expect(() => serverSpeed(shapeOf("llama-3.1-8b"), use, findGpu("A100 80GB SXM"), 1)).toThrow(/FP8 products.*bf16/s);
  });

  test("parameters that work: no embedding, two experts of eight", () => {
    expect(activeParameters(shapeOf("llama-3.1-8b"))).toBe(8_030_261_248 - 128256 * 4096);
    // Mixtral 8x7B: 46.7 billion, of which six experts of 3 x 14336 x 4096 a layer rest.
    expect(activeParameters(shapeOf("mixtral-8x7b"))).toBe(46_702_792_704 - 32000 * 4096 - 32 * 6 * 3 * 14336 * 4096);
  });
});

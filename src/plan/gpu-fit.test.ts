import { describe, expect, test } from "vitest";
import { findInCatalogue } from "./catalogue.js";
import { findBest, fitGpu, listFits, marginBytes } from "./gpu-fit.js";
import { findGpu } from "./gpus.js";

const shapeOf = (name: string) => findInCatalogue(name)!.shape;
const seventy = shapeOf("llama-3.1-70b");

describe("GPUs that run a model", () => {
  test("70B in Q4_K_M with 8,192 tokens: one of 48 GB, two of 24 GB, not one of 32 GB", () => {
    const use = { type: "Q4_K_M", context: 8192 } as const;
    const a6000 = fitGpu(seventy, use, findGpu("RTX A6000"));
    // 39.0 GiB of weights less the embedding, 2.5 GiB of cache.
    expect(a6000.memory.gpu.weights / 2 ** 30).toBeCloseTo(39.6 - 0.55, 1);
    expect(a6000.memory.gpu.kvCache).toBe(2.5 * 2 ** 30);
    expect(a6000.fits).toBe(true);
    expect(fitGpu(seventy, use, findGpu("RTX 4090"), { count: 2 }).fits).toBe(true);
    const single = fitGpu(seventy, use, findGpu("RTX 5090"));
    expect(single.fits).toBe(false);
    expect(single.memory.gpu.total).toBeLessThanOrEqual(32 * 2 ** 30 - marginBytes);
    expect(single.gpuLayers).toBeGreaterThan(50);
    expect(single.tokensPerSecond).toBeUndefined();
  });

  test("49B runs where its parent does not, and faster", () => {
    const use = { type: "Q4_K_M", context: 8192 } as const;
    const names = (model: string) => listFits(shapeOf(model), use).map(({ name, count }) => `${count} ${name}`);
    const parents = names("llama-3.1-70b");
    const more = names("llama-3.3-nemotron-super-49b").filter((name) => !parents.includes(name));
    expect(more).toContain("1 RTX 5090");
    const [child, parent] = ["llama-3.3-nemotron-super-49b", "llama-3.1-70b"].map(
      (model) => fitGpu(shapeOf(model), use, findGpu("H100 SXM")).tokensPerSecond!,
    );
    expect(child!.bound / parent!.bound).toBeCloseTo(39.05 / 27.4, 0);
  });

  test("the list is sorted by memory and holds only what fits", () => {
    const fits = listFits(shapeOf("llama-3.1-8b"), { type: "Q8_0", context: 8192 });
    const memories = fits.map(({ memoryBytes }) => memoryBytes);
    expect(memories).toEqual([...memories].sort((a, b) => a - b));
    expect(fits.every(({ memory, usableBytes }) => memory.gpu.total <= usableBytes)).toBe(true);
    expect(fits.some(({ name }) => name === "M4 16 GB")).toBe(true);
  });

  test("a rent becomes a price for a million tokens", () => {
    const { tokensPerSecond, costPerMillionTokens, gpu } = fitGpu(
      shapeOf("llama-3.1-8b"),
      { type: "Q8_0", context: 8192 },
      findGpu("H100 SXM"),
    );
    expect(costPerMillionTokens).toBeCloseTo((gpu.hourly!.usd / 3600 / tokensPerSecond!.expected) * 1e6, 9);
  });

  test("the best for a price: affordable, holds the model, and no affordable one is faster", () => {
    const [shape, context] = [shapeOf("llama-3.1-70b"), 8192];
    const best = findBest(shape, { context }, 4000);
    expect(best[0]).toMatchObject({ type: "Q8_0", name: "Strix Halo 96 GB" });
    for (const { type, priceUsd, tokensPerSecond } of best) {
      expect(priceUsd).toBeLessThanOrEqual(4000);
      const others = listFits(shape, { type, context }).filter(
        ({ gpu, count }) => (gpu.price?.usd ?? 1e9) * count <= 4000,
      );
      expect(Math.max(...others.map((fit) => fit.tokensPerSecond!.expected))).toBeCloseTo(tokensPerSecond!.expected, 9);
    }
    expect(findBest(shape, { context }, 100)).toEqual([]);
  });
});

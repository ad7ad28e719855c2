/** @module Made-up reports for tests; nothing here was measured. */
import { createRng, type Interval } from "../../base/index.js";
import type { BlockConfig } from "../../models/index.js";
import type { ReportData, ReportModel } from "./data.js";

function around(mean: number, half: number, n = 32): Interval {
  return { mean, low: mean - half, high: mean + half, n };
}

function block(kvHeads: number | "linear" | "none", width: number | "linear" | "none"): BlockConfig {
  return {
    attention: typeof kvHeads === "number" ? { kind: "gqa", kvHeads } : { kind: kvHeads },
    ffn: typeof width === "number" ? { kind: "swiglu", width } : { kind: width },
  };
}

function speed(prefill: number, decode: number): NonNullable<ReportModel["speed"]> {
  return { prefill: around(prefill, 0.03 * prefill, 5), decode: around(decode, 0.04 * decode, 5) };
}

/** A made-up run of the given depth; 5 layers look like the smallest parent, 30 or 80 like a user's own. */
export function exampleReport(layers = 5): ReportData {
  const rng = createRng(7);
  const pick = <T>(items: readonly T[]): T => items[rng.int(items.length)]!;
  const parentBlocks = Array.from({ length: layers }, () => block(4, 172));
  const childBlocks = Array.from({ length: layers }, (_, i) =>
    i === 0
      ? block(4, 128)
      : block(pick([4, 2, 1, "linear", "none"] as const), pick([172, 128, 88, 44, "linear", "none"] as const)),
  );
  const baseline = (name: string, parameters: number, kl: number): ReportModel => ({
    name,
    role: "baseline",
    parameters,
    fileBytes: parameters * 4 + 40_000,
    perplexity: 4.2 + 3 * kl,
    kl: around(kl, 0.012),
    klBeforeDistillation: around(3.1 * kl, 0.05),
    speed: speed(9000, 1400),
  });
  const variants = [
    "gqa 2 | swiglu 172 (100%)",
    "gqa 1 | swiglu 172 (100%)",
    "linear | swiglu 172 (100%)",
    "none | swiglu 172 (100%)",
    "gqa 4 | swiglu 128 (74%)",
    "gqa 4 | swiglu 88 (51%)",
    "gqa 4 | swiglu 44 (26%)",
    "gqa 4 | linear",
    "gqa 4 | none",
  ];
  const names = Array.from({ length: layers }, (_, i) => String(i));
  const curve = (model: string, end: number) => ({
    model,
    points: Array.from({ length: 195 }, (_, i) => ({
      step: i + 1,
      tokens: (i + 1) * 2048,
      loss: (end + 0.9 * Math.exp(-i / 25) + 0.4 * end * Math.exp(-i / 90)) * (1 + 0.04 * rng.normal()),
    })),
  });
  const child: ReportModel = {
    name: "child",
    role: "child",
    parameters: 155_904,
    fileBytes: 662_016,
    perplexity: 4.81,
    kl: around(0.161, 0.011),
    klBeforeDistillation: around(0.49, 0.04),
    speed: speed(9560, 1612),
    blocks: childBlocks,
  };
  return {
    title: "stories260K, reshaped to 60 % of its parameters",
    parent: {
      name: "parent",
      role: "parent",
      parameters: 260_032,
      fileBytes: 1_079_296,
      perplexity: 4.213,
      speed: speed(6120, 1105),
      blocks: parentBlocks,
    },
    child,
    baselines: [
      baseline("uniform", 148_000, 0.212),
      baseline("greedy", 155_100, 0.188),
      baseline("random 1", 155_800, 0.36),
      baseline("random 2", 155_300, 0.41),
      baseline("random 3", 154_900, 0.33),
    ],
    parentTraining:
      "The parent was trained on this corpus (TinyStories), so the set-aside text is new to the child and may not be to the parent.",
    evaluation: { text: "TinyStories sample, last tenth", tokens: 32_768, sequences: 128 },
    frontiers: [
      {
        name: "params",
        points: Array.from({ length: 12 }, (_, i) => ({
          budget: 60_000 + i * 18_000,
          objective: 2.2 * Math.exp(-i / 3.1) + (i === 11 ? -0.05 : 0),
        })),
        objective: 0.52,
      },
    ],
    predictions: [
      { model: "child", predicted: 0.52, measured: around(0.49, 0.04) },
      { model: "uniform", predicted: 0.83, measured: around(0.66, 0.05) },
      { model: "greedy", predicted: 0.66, measured: around(0.58, 0.04) },
      { model: "random 1", predicted: 1.6, measured: around(1.12, 0.08) },
      { model: "random 2", predicted: 1.9, measured: around(1.27, 0.09) },
      { model: "random 3", predicted: 1.4, measured: around(1.02, 0.07) },
    ],
    compute: [
      { model: "child", stage: "sliced", seconds: 6, kl: 1.1 },
      { model: "child", stage: "refitted", seconds: 14, kl: 0.49 },
      { model: "child", stage: "distilled, 200K tokens", seconds: 48, tokens: 200_000, kl: 0.21 },
      { model: "child", stage: "distilled, 400K tokens", seconds: 82, tokens: 400_000, kl: 0.161 },
      { model: "uniform", stage: "refitted", seconds: 9, kl: 0.66 },
      { model: "uniform", stage: "distilled", seconds: 77, tokens: 400_000, kl: 0.212 },
      { model: "greedy", stage: "refitted", seconds: 9, kl: 0.58 },
      { model: "greedy", stage: "distilled", seconds: 78, tokens: 400_000, kl: 0.188 },
    ],
    losses: [
      curve("child", 0.3),
      curve("uniform", 0.38),
      curve("greedy", 0.34),
      curve("random 1", 0.52),
      curve("random 2", 0.58),
      curve("random 3", 0.49),
    ],
    samples: [
      {
        prompt: "Once upon a time",
        outputs: [
          {
            model: "parent",
            text: "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball.",
          },
          {
            model: "child",
            text: "Once upon a time, there was a little girl named Lily. She loved to play with her <toys> & friends. One day, she went to the park with her mom.",
          },
        ],
      },
    ],
    search: {
      objective: 0.5203117,
      bound: 0.5203117,
      gap: 0,
      seconds: 0.41,
      spaceLog10: layers * 1.62,
      budgets: [{ name: "params", max: 156_019, total: 155_904, parent: 260_032, shadowPrice: 8.1e-6 }],
    },
    scores: {
      layers: names,
      variants,
      cells: names.flatMap((layer) =>
        variants.map((variant, j) => {
          const mean = 0.004 * Math.exp(0.45 * j) * Math.exp(0.8 * rng.normal()) * (layer === "0" ? 6 : 1);
          return { layer, variant, kl: around(mean, 0.15 * mean) };
        }),
      ),
      chosen: Object.fromEntries(names.map((layer) => [layer, pick(variants)])),
    },
    exports: [
      { path: "out/start/child", format: "Hugging Face (DeciLM), f32", bytes: 640_000, maxAbsLogitDifference: 0 },
      {
        path: "out/start/child-f32.gguf",
        format: "GGUF f32",
        bytes: 662_016,
        maxAbsLogitDifference: 3.1e-5,
        note: "llama.cpp against our engine",
      },
      { path: "out/start/child-q8_0.gguf", format: "GGUF q8_0", bytes: 201_000, kl: 0.00031 },
    ],
    stages: [
      "prepare",
      "calibrate",
      "variants",
      "score",
      "search",
      "realise",
      "distil",
      "export",
      "speed",
      "evaluate",
    ].map((name, i) => ({
      name,
      seconds: [0.4, 6.2, 8.1, 21, 0.41, 5.5, 34, 3.3, 12, 7.7][i]!,
      peakRssBytes: (180 + 31 * i) * 2 ** 20,
      cached: i < 2,
    })),
    peakRssBytes: 459 * 2 ** 20,
    seconds: 98.6,
    reproduce: {
      command: "espalier run recipes/start.json",
      seed: 0,
      versions: { espalier: "0.1.0", node: "20.20.2", "onnxruntime-node": "1.30.0", "llama.cpp": "b10076" },
      machine: "2 cores",
    },
  };
}

import { createRng, internal } from "../base/index.js";
import { type BlockConfig, blockWeights, layerPrefix, type Model, type ModelConfig } from "../models/index.js";
import { gqa, swiglu, testConfig } from "../models/testing.js";
import { type F32Tensor, f32Tensor, type HostTensor, sizeOf } from "../tensor/index.js";
import type { BatchedText } from "./capture.js";
import type { Multiply } from "./variants.js";

/** Standard normal entries times `scale`; the same for the same seed. */
export function randomMatrix(seed: string | number, shape: readonly number[], scale = 1): F32Tensor {
  const { normal } = createRng(seed);
  return f32Tensor(
    shape,
    Float32Array.from({ length: sizeOf(shape) }, () => scale * normal()),
  );
}

export const multiplyPlainly: Multiply = async (a, b) => {
  const [p, q, r] = [a.shape[0]!, a.shape[1]!, b.shape[1]!];
  const data = new Float32Array(p * r);
  for (let i = 0; i < p; i++) {
    for (let j = 0; j < r; j++) {
      let sum = 0;
      for (let k = 0; k < q; k++) sum += a.data[i * q + k]! * b.data[k * r + j]!;
      data[i * r + j] = sum;
    }
  }
  return f32Tensor([p, r], data);
};

/** A Llama shape small enough to check by hand. */
export function tinyConfig(changes: Partial<ModelConfig> = {}): ModelConfig {
  return testConfig({
    family: "llama",
    vocabSize: 24,
    hiddenSize: 16,
    headDim: 4,
    maxPositions: 64,
    blocks: Array.from({ length: 3 }, () => ({ attention: gqa(4), ffn: swiglu(24) })),
    ...changes,
  });
}

/** Random weights of one block, norms around 1. */
export function randomBlock(config: ModelConfig, block: BlockConfig, seed: string): Map<string, HostTensor> {
  return new Map(
    blockWeights(config, block).map(({ name, shape }) => {
      const tensor = randomMatrix(`${seed} ${name}`, shape, shape.length === 2 ? 1 / Math.sqrt(shape[1]!) : 0.1);
      return [
        name,
        name.includes("norm")
          ? f32Tensor(
              shape,
              tensor.data.map((value) => 1 + value),
            )
          : tensor,
      ];
    }),
  );
}

/** A model that exists in memory only. `change` may put other weights in place of the random ones. */
export function randomModel(
  config: ModelConfig,
  seed: string,
  change: (weights: Map<string, HostTensor>) => void = () => {},
): Model {
  const weights = new Map<string, HostTensor>([
    ["model.embed_tokens.weight", randomMatrix(`${seed} embed`, [config.vocabSize, config.hiddenSize])],
    ["model.norm.weight", f32Tensor([config.hiddenSize], new Float32Array(config.hiddenSize).fill(1))],
  ]);
  config.blocks.forEach((block, layer) => {
    for (const [name, tensor] of randomBlock(config, block, `${seed} ${layer}`)) {
      weights.set(layerPrefix(layer) + name, tensor);
    }
  });
  change(weights);
  const find = (name: string) => weights.get(name) ?? internal(`no weight ${name}`);
  return {
    path: "",
    format: "hf",
    config,
    weights: {
      has: (name) => weights.has(name),
      shapeOf: (name) => find(name).shape,
      read: async (name) => find(name),
    },
    sidecars: { legal: [], name: seed },
    notices: [],
    close: async () => {},
  };
}

/** Random ids as text. */
export function randomText(
  config: ModelConfig,
  { count, length, batch }: { count: number; length: number; batch: number },
): BatchedText {
  const { int } = createRng(`text ${count} ${length}`);
  const ids = Int32Array.from({ length: count * length }, () => int(config.vocabSize));
  return { sequences: { name: "test", length, count, ids, documents: count, skipped: 0 }, batch };
}

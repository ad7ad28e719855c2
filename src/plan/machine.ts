/** @module A short measurement of this machine at a model's own shapes, for the forecast of a run. */
import { createGraph } from "../graph/index.js";
import { type BlockConfig, blockWeightInputs, buildBlock, type ModelConfig } from "../models/index.js";
import { measure, type Runtime, type Tensors } from "../runtime/index.js";
import { cholesky, f32Tensor, sizeOf } from "../tensor/index.js";
import { blockFlops, type Machine } from "./dry-run.js";

/** Operations that one timed pass may take: a fraction of a second anywhere. */
const passFlops = 2e10;

/** Times the model's widest block and a Cholesky factorisation; takes about a second. */
export async function measureMachine(
  runtime: Runtime,
  config: ModelConfig,
  { length, batch }: { length: number; batch: number },
): Promise<Machine> {
  return { gflops: await blockRate(runtime, config, { length, batch }), solveGflops: await solveRate(256) };
}

async function blockRate(
  runtime: Runtime,
  config: ModelConfig,
  { length, batch }: { length: number; batch: number },
): Promise<number> {
  const block = widestBlock(config);
  const flops = blockFlops(config, block, length);
  const rows = Math.max(1, Math.min(batch, Math.floor(passFlops / flops / length)));
  const g = createGraph("machine rate");
  const x = g.input("x", [rows * length, config.hiddenSize]);
  const table = [1, length, config.headDim / 2];
  const rotary = block.attention.kind === "gqa" ? { cos: g.input("cos", table), sin: g.input("sin", table) } : {};
  const weights = blockWeightInputs(g, config, block);
  g.output("output", buildBlock(g, config, block, { batch: rows, length, x, ...rotary, weights }).output);
  const program = await runtime.compile(g);
  const shapes = Object.entries({ x, ...rotary, ...weights });
  const feeds: Tensors = Object.fromEntries(shapes.map(([name, { shape }]) => [name, noise(shape)]));
  const { bestMs } = await measure(() => program.run(feeds), { warmUp: 2, runs: 5 });
  await program.dispose();
  return (flops * rows * length) / (bestMs * 1e6);
}

function widestBlock({ blocks }: ModelConfig): BlockConfig {
  const width = ({ ffn }: BlockConfig) => (ffn.kind === "swiglu" ? ffn.width : 0);
  return blocks.reduce((widest, block) => (width(block) > width(widest) ? block : widest));
}

/** Small values that are neither zero nor equal: zeros would be read from one page of memory. */
function noise(shape: readonly number[]) {
  return f32Tensor(
    shape,
    Float32Array.from({ length: sizeOf(shape) }, (_, i) => ((i * 2654435761) % 1000) / 1e5),
  );
}

async function solveRate(n: number): Promise<number> {
  const gram = Float64Array.from({ length: n * n }, (_, i) => (Math.floor(i / n) === i % n ? n : 1 / (1 + (i % 7))));
  const { bestMs } = await measure(async () => cholesky(gram, n), { warmUp: 2, runs: 5 });
  return n ** 3 / 3 / (bestMs * 1e6);
}

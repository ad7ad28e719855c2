/** One model's figure. */
interface Published {
  tensorParallel: number;
  tokensPerSecondPerGpu: number;
}

/**
 * Llama-3.1-Nemotron-51B-Instruct and its parent Llama-3.1-70B-Instruct on H100 SXM with TensorRT-LLM, weights, products
 * and cache in FP8; tensor parallelism as its authors chose it for each (arXiv:2411.19146, table 2).
 */
export const publishedThroughput: readonly { input: number; output: number; child: Published; parent: Published }[] = [
  row(128, 128, [1, 5478], [1, 2645]),
  row(128, 1024, [1, 6472], [4, 2975]),
  row(128, 2048, [2, 4910], [4, 2786]),
  row(128, 4096, [2, 3855], [4, 1828]),
  row(2048, 128, [1, 653], [4, 339]),
  row(2048, 2048, [2, 2622], [4, 1336]),
];

function row(input: number, output: number, child: [number, number], parent: [number, number]) {
  const published = ([tensorParallel, tokensPerSecondPerGpu]: [number, number]) => ({
    tensorParallel,
    tokensPerSecondPerGpu,
  });
  return { input, output, child: published(child), parent: published(parent) };
}

/**
 * @module The model of a server's throughput against the published table of Nemotron-51B and its parent: the error of each
 * figure and of each ratio, at the tensor parallelism that its authors chose and at the one the model finds best.
 */
import { bestServerSpeed, findGpu, openPlanned, publishedThroughput, serverSpeed } from "../src/plan/index.js";
import type { Bench } from "./main.js";

interface Figure {
  published: number;
  modelled: number;
  /** Modelled over published, less one. */
  error: number;
  /** Tensor parallelism of the published figure, and what the model would take. */
  tensorParallel: number;
  bestTensorParallel: number | null;
}

export const serverModel: Bench = async ({ json }) => {
  const gpu = findGpu("H100 SXM");
  const child = await openPlanned("llama-3.1-nemotron-51b");
  const parent = await openPlanned("llama-3.1-70b");
  const rows = publishedThroughput.map(({ input, output, ...published }) => {
    const figure = (
      shape: typeof child.shape,
      { tensorParallel, tokensPerSecondPerGpu }: typeof published.child,
    ): Figure => {
      const use = { type: "fp8", input, output } as const;
      const modelled = serverSpeed(shape, use, gpu, tensorParallel)!.tokensPerSecondPerGpu;
      const error = modelled / tokensPerSecondPerGpu - 1;
      const bestTensorParallel = bestServerSpeed(shape, use, gpu)?.tensorParallel ?? null;
      return { published: tokensPerSecondPerGpu, modelled, error, tensorParallel, bestTensorParallel };
    };
    const [own, other] = [figure(child.shape, published.child), figure(parent.shape, published.parent)];
    const ratio = { published: own.published / other.published, modelled: own.modelled / other.modelled };
    return {
      input,
      output,
      child: own,
      parent: other,
      ratio: { ...ratio, error: ratio.modelled / ratio.published - 1 },
    };
  });
  process.stdout.write(json ? `${JSON.stringify(rows, null, 2)}\n` : render(rows));
};

type Row = {
  input: number;
  output: number;
  child: Figure;
  parent: Figure;
  ratio: Omit<Figure, "tensorParallel" | "bestTensorParallel">;
};

function render(rows: readonly Row[]): string {
  const percent = (share: number) => `${share >= 0 ? "+" : ""}${(100 * share).toFixed(0)} %`;
  const shown = ({ published, modelled, error, tensorParallel, bestTensorParallel }: Figure) =>
    `${modelled.toFixed(0)} for ${published} (${percent(error)}) | ${tensorParallel} | ${bestTensorParallel}`;
  const lines = rows.map(
    ({ input, output, child, parent, ratio }) =>
      `| ${input}/${output} | ${shown(child)} | ${shown(parent)} | ${ratio.modelled.toFixed(2)} for ${ratio.published.toFixed(2)} (${percent(ratio.error)}) |`,
  );
  const head = [
    "Tokens/s a GPU, H100 FP8: modelled for published. TP: the published figure's, then the model's best.",
    "",
    "| in/out | 51B | TP | best | 70B | TP | best | ratio |",
    "|---|---|--:|--:|---|--:|--:|---|",
  ];
  return `${[...head, ...lines].join("\n")}\n`;
}

/**
 * @module The gradient of the distillation loss (losses/distil.ts), half a block at a time. The forward sweep keeps the
 * residual stream before every half, and of what is inside a half as much as `keepBytes` allows: matrix products and
 * attention, products alone, or nothing. The backward sweep computes the rest again (arXiv:1604.06174). So beside weights,
 * gradients and moments, memory holds the streams of parent and child, what is kept, the inside of one half and the logits
 * of one chunk of positions. With nothing kept an eighth of the work is done twice, parent included.
 *
 * The parent is no part of any program: its streams come from whoever runs it, which may read its weights from a file
 * layer by layer.
 */
import { internal } from "../base/index.js";
import { createGraph, type Graph, type GraphBuilder, gradients, type Node, type Value } from "../graph/index.js";
import {
  type BlockConfig,
  blockWeightInputs,
  blockWeights,
  buildBlock,
  buildFinalNorm,
  headWeightName,
  layerPrefix,
  type ModelConfig,
  positionsFrom,
  rotaryTables,
} from "../models/index.js";
import type { Program, Runtime, Tensors } from "../runtime/index.js";
import { type F32Tensor, f32Tensor, sizeOf } from "../tensor/index.js";
import { cosineDistance } from "./losses/distil.js";
import type { BatchShape } from "./losses/model.js";
import { type Parameters, viewsOf } from "./parameters.js";
import { type JointGraph, type SplitGraph, splitGraph } from "./split.js";
import type { BatchResult, StepProgram, StepSource } from "./step.js";

/** The parent, as far as distillation knows it. */
export interface Teacher {
  readonly config: ModelConfig;
  /** Writes the residual stream after each block, [batch * length, H], into `into`, one tensor a layer. */
  hiddenStates(ids: readonly Int32Array[], into: readonly F32Tensor[]): Promise<void>;
  /** The final norm, [H], and the head's matrix, [V, H]. */
  head(): Promise<{ norm: F32Tensor; head: F32Tensor }>;
}

/** Positions whose logits exist at one time. */
const headRows = 256;

/** What may be kept from the forward sweep, the most first. */
const keeping: readonly (readonly Node["kind"][])[] = [["matmul", "gemm", "attention"], ["matmul", "gemm"], []];

export interface LayeredOptions {
  /** Bytes of the inside of blocks that wait for the backward sweep. Defaults to 256 MiB. */
  keepBytes?: number;
}

const finalNormName = "model.norm.weight";
const embeddingName = "model.embed_tokens.weight";
const gradientPrefix = "gradient/";
const sumPrefix = "sum/";

/**
 * For `train`: the same loss and gradients as `modelDistillationLoss`, with memory bounded by half a block. The child
 * must have as many layers as its parent, and its width; its blocks may differ.
 * Inputs of a batch: `ids` i64 [B, T], `weights` f32 [B * T], as `distillationBatch` gives them.
 */
export function layeredDistillation(
  teacher: Teacher,
  child: ModelConfig,
  shape: BatchShape,
  { keepBytes = 256 * 2 ** 20 }: LayeredOptions = {},
): StepSource {
  return {
    create: (runtime, name, parameters, gradientsFlat) =>
      createLayeredStep({ runtime, name, teacher, child, shape, keepBytes, parameters, gradients: gradientsFlat }),
  };
}

interface Work {
  runtime: Runtime;
  name: string;
  teacher: Teacher;
  child: ModelConfig;
  shape: BatchShape;
  keepBytes: number;
  parameters: Parameters;
  gradients: Float32Array;
}

/** Attention or feed-forward of one layer, as a block without the other. */
interface Half {
  layer: number;
  block: BlockConfig;
  /** Its place among the halves: the stream before it; the stream after it is the next one. */
  index: number;
}

function createLayeredStep(work: Work): StepProgram {
  const { child, shape, parameters, teacher } = work;
  const rows = shape.batch * shape.length;
  const halves = halvesOf(child);
  const stream = () => f32Tensor([rows, child.hiddenSize]);
  const streams = Array.from({ length: halves.length + 1 }, stream);
  const targets = child.blocks.map(stream);
  const slopes: [F32Tensor, F32Tensor] = [stream(), stream()];
  const views = viewsOf(parameters.layout, work.gradients);
  const programs = createPrograms(work, halves);
  const insides = halves.map(({ block }) => tensorsFor(programs.kept(block)));

  return {
    async run(feeds, denominator, first) {
      const ids = rowsOfIds(feeds.ids!.data as BigInt64Array, shape);
      embedInto(parameters.tensors[embeddingName]!, ids, streams[0]!);
      for (const half of halves) {
        const program = await programs.forward(half.block);
        const weights = weightsOf(child, half, parameters.tensors);
        const into = { y: streams[half.index + 1]!, ...insides[half.index]! };
        await program.run(only(program, { x: streams[half.index]!, ...weights }), into);
      }
      await teacher.hiddenStates(ids, targets);

      const step: Backward = { ...work, programs, views, first, feeds, denominator, slopes };
      const kl = await headBackward(step, streams.at(-1)!, targets.at(-1)!);
      let cosine = 0;
      let below = halves.length;
      for (let layer = child.blocks.length - 1; layer >= 0; layer--) {
        cosine += await addCosine(step, streams[below]!, targets[layer]!);
        while (below > 0 && halves[below - 1]!.layer === layer) {
          below -= 1;
          await halfBackward(step, halves[below]!, streams[below]!, insides[below]!);
        }
      }
      addEmbeddingRows(step, ids);
      return { loss: cosine + kl, parts: { cosine, kl } } satisfies BatchResult;
    },
  };
}

function halvesOf({ blocks }: ModelConfig): Half[] {
  const halves: Half[] = [];
  for (const [layer, { attention, ffn }] of blocks.entries()) {
    const own: BlockConfig[] = [];
    if (attention.kind !== "none") own.push({ attention, ffn: { kind: "none" } });
    if (ffn.kind !== "none") own.push({ attention: { kind: "none" }, ffn });
    for (const block of own) halves.push({ layer, block, index: halves.length });
  }
  return halves;
}

/** A half's weights (or their gradients) by short name, after a prefix. */
function weightsOf(
  config: ModelConfig,
  { layer, block }: Half,
  from: Readonly<Record<string, F32Tensor>>,
  prefix = "",
): Record<string, F32Tensor> {
  const entries = blockWeights(config, block).map(
    ({ name }) => [prefix + name, from[layerPrefix(layer) + name]!] as const,
  );
  return Object.fromEntries(entries);
}

interface Backward extends Work {
  programs: Programs;
  /** Gradients by name. */
  views: Readonly<Record<string, F32Tensor>>;
  /** Gradients are written, and not added to what is there. */
  first: boolean;
  feeds: Tensors;
  denominator: number;
  /** Gradient of the stream at hand, and room for the next one; they change places. */
  slopes: [F32Tensor, F32Tensor];
}

/** KL, and the gradients of head, final norm and last stream (into `slopes[0]`), a chunk of positions at a time. */
async function headBackward(step: Backward, hidden: F32Tensor, target: F32Tensor): Promise<number> {
  const { child, parameters, teacher, views, first, programs, slopes } = step;
  const parent = await teacher.head();
  const headName = headWeightName(child);
  const rows = hidden.shape[0]!;
  let kl = 0;
  for (let from = 0; from < rows; from += headRows) {
    const to = Math.min(rows, from + headRows);
    const fresh = first && from === 0;
    const program = await programs.head(to - from, !fresh);
    const sums = { [`${sumPrefix}norm`]: views[finalNormName]!, [`${sumPrefix}head`]: views[headName]! };
    const results = await program.run(
      {
        hidden: rowsOf(hidden, from, to),
        norm: parameters.tensors[finalNormName]!,
        head: parameters.tensors[headName]!,
        target: rowsOf(target, from, to),
        parentNorm: parent.norm,
        parentHead: parent.head,
        weights: f32Tensor([to - from], (step.feeds.weights!.data as Float32Array).subarray(from, to)),
        denominator: f32Tensor([], [step.denominator]),
        ...(!fresh && sums),
      },
      {
        slope: rowsOf(slopes[0], from, to),
        [`${gradientPrefix}norm`]: views[finalNormName]!,
        [`${gradientPrefix}head`]: views[headName]!,
      },
    );
    kl += scalarOf(results.kl!);
  }
  return kl;
}

/** The cosine term of one layer; its gradient joins the stream's. */
async function addCosine(step: Backward, hidden: F32Tensor, target: F32Tensor): Promise<number> {
  const { slopes, feeds, denominator } = step;
  const program = await step.programs.cosine();
  const results = await program.run(
    { hidden, target, slope: slopes[0], weights: feeds.weights!, denominator: f32Tensor([], [denominator]) },
    { sum: slopes[1] },
  );
  slopes.reverse();
  return scalarOf(results.cosine!);
}

async function halfBackward(step: Backward, half: Half, x: F32Tensor, inside: Tensors): Promise<void> {
  const { child, parameters, views, first, programs, slopes } = step;
  const program = await programs.backward(half.block, !first);
  await program.run(
    only(program, {
      x,
      slope: slopes[0],
      ...inside,
      ...weightsOf(child, half, parameters.tensors),
      ...weightsOf(child, half, views, sumPrefix),
    }),
    { dx: slopes[1], ...weightsOf(child, half, views, gradientPrefix) },
  );
  slopes.reverse();
}

/** Rows of the first stream's gradient, added to the table in their order: a tied one has the head's gradient by now. */
function addEmbeddingRows({ child, views, first, slopes }: Backward, ids: readonly Int32Array[]): void {
  const table = views[embeddingName]!.data;
  if (first && !child.tiedEmbeddings) table.fill(0);
  const { data, shape } = slopes[0];
  const width = shape[1]!;
  let from = 0;
  for (const row of ids) {
    for (const id of row) {
      const to = id * width;
      for (let i = 0; i < width; i++) table[to + i]! += data[from + i]!;
      from += width;
    }
  }
}

type Programs = ReturnType<typeof createPrograms>;

/** One program for each shape of half and what is asked of it, shared by all layers. */
function createPrograms({ runtime, name, child, teacher, shape, keepBytes }: Work, halves: readonly Half[]) {
  const known = new Map<string, Promise<Program>>();
  const rows = shape.batch * shape.length;
  const hiddenShape = [rows, child.hiddenSize];
  const compile = (key: string, build: (g: GraphBuilder) => Graph): Promise<Program> => {
    const found = known.get(key);
    if (found) return found;
    const g = createGraph(`${name}_${key.replaceAll(/\W+/g, "_")}`);
    const program = runtime.compile(build(g));
    known.set(key, program);
    return program;
  };
  const kinds = kindsWithin(keepBytes, child, shape, halves);
  const split = (g: GraphBuilder, block: BlockConfig, adds: boolean) =>
    splitGraph(buildHalf(g, child, shape, block, adds), kinds);

  return {
    /** What a half's forward program hands to its backward program. */
    kept: (block: BlockConfig) => split(createGraph("kept"), block, false).kept,
    forward: (block: BlockConfig) => compile(`forward ${JSON.stringify(block)}`, (g) => split(g, block, false).forward),
    backward: (block: BlockConfig, adds: boolean) =>
      compile(`backward ${adds} ${JSON.stringify(block)}`, (g) => split(g, block, adds).backward),
    cosine: () =>
      compile("cosine", (g) => {
        const [hidden, target] = [g.input("hidden", hiddenShape), g.input("target", hiddenShape)];
        const slope = g.input("slope", hiddenShape);
        const share = g.div(g.input("weights", [rows]), g.input("denominator", []));
        const distance = g.sum(g.mul(cosineDistance(g, hidden, g.stopGradient(target)), share));
        const cosine = g.scale(distance, 1 / child.blocks.length);
        g.output("cosine", cosine);
        g.output("sum", g.add(slope, gradients(g, cosine, [hidden])[0]!));
        return g;
      }),
    head: (chunk: number, adds: boolean) =>
      compile(`head ${chunk} ${adds}`, (g) => {
        const [H, V] = [child.hiddenSize, child.vocabSize];
        const [hidden, target] = [g.input("hidden", [chunk, H]), g.input("target", [chunk, H])];
        const [norm, head] = [g.input("norm", [H]), g.input("head", [V, H])];
        const student = { hidden: buildFinalNorm(g, child, hidden, norm), head };
        const parentNorm = buildFinalNorm(g, teacher.config, target, g.input("parentNorm", [H]));
        const parent = { hidden: parentNorm, head: g.input("parentHead", [V, H]) };
        const denominator = g.input("denominator", []);
        const kl = g.klDivergence(student, parent, g.input("weights", [chunk]), { denominator, chunk });
        const [slope, dNorm, dHead] = gradients(g, kl, [hidden, norm, head]);
        g.output("kl", kl);
        g.output("slope", slope!);
        outputGradient(g, "norm", dNorm!, adds);
        outputGradient(g, "head", dHead!, adds);
        return g;
      }),
  };
}

/** Half a block with the gradients that follow from the slope of its output. */
function buildHalf(
  g: GraphBuilder,
  config: ModelConfig,
  shape: BatchShape,
  block: BlockConfig,
  adds: boolean,
): JointGraph {
  const hiddenShape = [shape.batch * shape.length, config.hiddenSize];
  const x = g.input("x", hiddenShape);
  const weights = blockWeightInputs(g, config, block);
  const tables = rotaryTables(config, positionsFrom(0, shape.length));
  const [cos, sin] = [g.constant(tables.cos), g.constant(tables.sin)];
  const { output } = buildBlock(g, config, block, { ...shape, x, weights, cos, sin });
  const forwardNodes = g.nodes.length;
  // The gradient of this sum is what the chain rule hands down when dL/d output is `slope`.
  const handed = g.sum(g.mul(output, g.stopGradient(g.input("slope", hiddenShape))));
  const [dx, ...own] = gradients(g, handed, [x, ...Object.values(weights)]);
  g.output("dx", dx!);
  Object.keys(weights).forEach((weight, i) => {
    outputGradient(g, weight, own[i]!, adds);
  });
  return { graph: g, forwardNodes, results: [{ name: "y", value: output }] };
}

/** The most that stays within `limit` bytes for all halves together. */
function kindsWithin(limit: number, config: ModelConfig, shape: BatchShape, halves: readonly Half[]) {
  const joints = new Map<string, JointGraph>();
  for (const { block } of halves) {
    const key = JSON.stringify(block);
    if (!joints.has(key)) joints.set(key, buildHalf(createGraph(key), config, shape, block, false));
  }
  const bytesOf = (kinds: (typeof keeping)[number]) =>
    halves.reduce((sum, { block }) => {
      const { kept } = splitGraph(joints.get(JSON.stringify(block))!, kinds);
      return sum + kept.reduce((bytes, { value }) => bytes + 4 * sizeOf(value.shape), 0);
    }, 0);
  return keeping.find((kinds) => bytesOf(kinds) <= limit)!;
}

function tensorsFor(values: SplitGraph["kept"]): Record<string, F32Tensor> {
  return Object.fromEntries(values.map(({ name, value }) => [name, f32Tensor(value.shape)]));
}

/** Those that a program takes. */
function only({ inputs }: Program, tensors: Tensors): Tensors {
  return Object.fromEntries(inputs.map(({ name }) => [name, tensors[name] ?? internal(`no ${name}`)]));
}

function outputGradient(g: GraphBuilder, name: string, own: Value, adds: boolean): void {
  g.output(gradientPrefix + name, adds ? g.add(own, g.input(sumPrefix + name, own.shape)) : own);
}

function rowsOfIds(ids: BigInt64Array, { batch, length }: BatchShape): Int32Array[] {
  return Array.from({ length: batch }, (_, i) => Int32Array.from(ids.subarray(i * length, (i + 1) * length), Number));
}

function embedInto({ data, shape }: F32Tensor, ids: readonly Int32Array[], into: F32Tensor): void {
  const width = shape[1]!;
  let at = 0;
  for (const row of ids) {
    for (const id of row) {
      into.data.set(data.subarray(id * width, (id + 1) * width), at);
      at += width;
    }
  }
}

function rowsOf({ data, shape }: F32Tensor, from: number, to: number): F32Tensor {
  const width = shape[1]!;
  return f32Tensor([to - from, width], data.subarray(from * width, to * width));
}

function scalarOf({ data }: Tensors[string]): number {
  return (data as Float32Array)[0]!;
}

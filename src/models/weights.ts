/** @module Weights over a file: found, measured against the configuration when opened, checked for NaN when read. */
import { EspalierError } from "../base/index.js";
import { findNonFinite, type TensorFile } from "../formats/index.js";
import { type F32Tensor, f32Tensor, type HostTensor, type Shape, sameShape } from "../tensor/index.js";
import { type ModelConfig, modelWeights, type WeightSource } from "./config.js";
import { ggufName, pairsToHalves, rotaryHeads } from "./families/index.js";

interface WeightBacking {
  where: string;
  /** Name in the file, or undefined where it has none. */
  nameOf(name: string): string | undefined;
  /** Values of a canonical weight, from the file's values. */
  convert(name: string, values: Float32Array): Float32Array;
  /** True where `convert` moves values from row to row. */
  movesRows(name: string): boolean;
  /** Names in the file that say nothing about the function. */
  isHarmless(name: string): boolean;
}

/**
 * Weights of a Hugging Face checkpoint.
 * @param isOther names of tensors that belong to something beside the language model, such as a reward head
 */
export function createHubWeights(
  file: TensorFile,
  config: ModelConfig,
  where: string,
  isOther: (name: string) => boolean = () => false,
): WeightSource {
  const embedding = "model.embed_tokens.weight";
  const head = "lm_head.weight";
  // Some checkpoints with tied embeddings store the table once, under the head's name.
  const storedAsHead = config.tiedEmbeddings && !file.info(embedding) && file.info(head) !== undefined;
  return createFileWeights(file, config, {
    where,
    nameOf: (name) => (storedAsHead && name === embedding ? head : name),
    convert: (_, values) => values,
    movesRows: () => false,
    isHarmless: (name) =>
      isOther(name) ||
      name.endsWith(".rotary_emb.inv_freq") ||
      name.endsWith(".masked_bias") ||
      (config.tiedEmbeddings && name === head),
  });
}

/** Weights of a GGUF file, rows of queries and keys put back into the halves pairing. */
export function createGgufWeights(file: TensorFile, config: ModelConfig, where: string): WeightSource {
  return createFileWeights(file, config, {
    where,
    nameOf: ggufName,
    convert(name, values) {
      const heads = rotaryHeads(config, name);
      return heads > 0 ? pairsToHalves(values, heads, config.headDim) : values;
    },
    movesRows: (name) => rotaryHeads(config, name) > 0,
    isHarmless: (name) => name === "rope_freqs.weight",
  });
}

function createFileWeights(file: TensorFile, config: ModelConfig, backing: WeightBacking): WeightSource {
  const shapes = new Map(modelWeights(config).map(({ name, shape }) => [name, shape]));
  checkTensors(file, shapes, backing);
  const shapeOf = (name: string): Shape => {
    const shape = shapes.get(name);
    if (shape) return shape;
    throw new EspalierError({ where: backing.where, expected: "a weight of the model", found: name });
  };
  const read = async (name: string): Promise<F32Tensor> => {
    const shape = shapeOf(name);
    const stored = backing.nameOf(name)!;
    const values = backing.convert(name, await file.read(stored));
    checkFinite(values, `${backing.where} tensor ${stored}`);
    return f32Tensor(shape, values);
  };
  return {
    has: (name) => shapes.has(name),
    shapeOf,
    read,
    async readRows(name, from, to) {
      const shape = shapeOf(name);
      if (backing.movesRows(name)) return sliceRows(await read(name), from, to);
      const stored = backing.nameOf(name)!;
      const values = await file.readRows(stored, from, to);
      checkFinite(values, `${backing.where} tensor ${stored}`);
      return f32Tensor([to - from, ...shape.slice(1)], values);
    },
  };
}

/** The rows of a weight from `from` up to, not including, `to`; read alone where the source can. */
export async function readWeightRows(source: WeightSource, name: string, from: number, to: number): Promise<F32Tensor> {
  const rows = source.readRows?.(name, from, to) ?? source.read(name).then((tensor) => sliceRows(tensor, from, to));
  return (await rows) as F32Tensor;
}

/** A view of some rows. */
function sliceRows({ dtype, shape, data }: HostTensor, from: number, to: number): HostTensor {
  const width = shape.slice(1).reduce((a, b) => a * b, 1);
  return { dtype, shape: [to - from, ...shape.slice(1)], data: data.subarray(from * width, to * width) };
}

/** Every weight there with its shape, and none that the configuration does not explain: such a one would go unheard. */
function checkTensors(file: TensorFile, shapes: ReadonlyMap<string, Shape>, backing: WeightBacking): void {
  const problems: string[] = [];
  const expected = new Set<string>();
  for (const [name, shape] of shapes) {
    const stored = backing.nameOf(name);
    const info = stored === undefined ? undefined : file.info(stored);
    if (stored !== undefined) expected.add(stored);
    if (!info) problems.push(`${stored ?? name}: expected [${shape}], found none`);
    else if (!sameShape(info.shape, shape)) problems.push(`${stored}: expected [${shape}], found [${info.shape}]`);
  }
  for (const name of file.names) {
    if (!expected.has(name) && !backing.isHarmless(name)) problems.push(`${name}: not a weight of this configuration`);
  }
  if (problems.length === 0) return;
  const shown = problems.slice(0, 8).map((problem) => `\n  ${problem}`);
  const rest = problems.length > shown.length ? `\n  and ${problems.length - shown.length} more` : "";
  throw new EspalierError({
    where: `${backing.where}: tensors do not match the configuration${shown.join("")}${rest}`,
    fix: "configuration and weights must be of the same model",
  });
}

/** Throws where a value is NaN or infinite: every later number would be NaN too, far from its cause. */
export function checkFinite(values: Float32Array, where: string): void {
  const at = findNonFinite(values);
  if (at < 0) return;
  throw new EspalierError({
    where,
    expected: "finite weights",
    found: `${values[at]} at element ${at}`,
    fix: "the checkpoint is damaged, or its training diverged",
  });
}

/** A source with other tensors laid over it; `config` says which names there are. */
export function overlayWeights(
  base: WeightSource,
  config: ModelConfig,
  tensors: ReadonlyMap<string, HostTensor>,
): WeightSource {
  const shapes = new Map(modelWeights(config).map(({ name, shape }) => [name, shape]));
  for (const [name, shape] of shapes) {
    const found = tensors.get(name)?.shape ?? (base.has(name) ? base.shapeOf(name) : undefined);
    if (found && sameShape(found, shape)) continue;
    throw new EspalierError({
      where: `child weight ${name}`,
      expected: `[${shape}]`,
      found: found ? `[${found}]` : "none, neither in the child nor in its parent",
    });
  }
  const checkName = (name: string): void => {
    if (!shapes.has(name)) throw new EspalierError({ where: "child", expected: "a weight of the model", found: name });
  };
  return {
    has: (name) => shapes.has(name),
    shapeOf(name) {
      checkName(name);
      return shapes.get(name)!;
    },
    async read(name) {
      checkName(name);
      return tensors.get(name) ?? base.read(name);
    },
    async readRows(name, from, to) {
      checkName(name);
      const own = tensors.get(name);
      return own ? sliceRows(own, from, to) : readWeightRows(base, name, from, to);
    },
  };
}

/**
 * @module Which type llama.cpp's quantiser (`llama_model_quantize`, v0.5.0) gives to each tensor, for every file type, so
 * that the bytes of a file are known before it exists. A file type is a mixture: a base, and better types for the tensors
 * that suffer most, chosen by role, by layer, by the sharing of key/value heads and by whether there is an importance matrix.
 */
import { tensorTypes } from "../formats/index.js";
import { ggufTensors, type ModelShape, type PlannedTensor, type TensorRole } from "./model-shape.js";

/** Types of tensors that mixtures are made of, the largest first. */
export const quantTypes = [
  "F32",
  "F16",
  "BF16",
  "Q8_0",
  "Q6_K",
  "Q5_1",
  "Q5_0",
  "Q5_K",
  "Q4_1",
  "Q4_0",
  "Q4_K",
  "IQ4_NL",
  "IQ4_XS",
  "MXFP4",
  "Q3_K",
  "IQ3_S",
  "IQ3_XXS",
  "Q2_K",
  "IQ2_S",
  "IQ2_XS",
  "IQ2_XXS",
  "TQ2_0",
  "IQ1_M",
  "TQ1_0",
  "IQ1_S",
] as const;
export type QuantType = (typeof quantTypes)[number];

/** Where a tensor stands among those of its role, and what the file is made with. */
interface Place {
  /** Number among the tensors of the same role. */
  index: number;
  /** Tensors of that role, for `attn_v`; layers of the model, for feed-forwards. */
  count: number;
  /** At least four query heads share one key/value head. */
  shared: boolean;
  imatrix: boolean;
}

type Choice = QuantType | ((place: Place) => QuantType | undefined);

/** A base type, and what departs from it by role. */
interface Mixture extends Partial<Record<TensorRole, Choice>> {
  base: QuantType;
}

const firstEighth = ({ index, count }: Place) => index < Math.floor(count / 8);
const sixteenth = ({ index, count }: Place) => index < Math.floor(count / 16);
const lastEighth = ({ index, count }: Place) => index >= Math.floor((7 * count) / 8);
/** The first and last eighth, and every third tensor between. */
const favoured = (place: Place) =>
  firstEighth(place) || lastEighth(place) || (place.index - Math.floor(place.count / 8)) % 3 === 2;

/** `type` where the place is one of those, else the base. */
const where =
  (test: (place: Place) => boolean, type: QuantType): Choice =>
  (place) =>
    test(place) ? type : undefined;
const shared =
  (type: QuantType, otherwise?: QuantType): Choice =>
  (place) =>
    place.shared ? type : otherwise;
const middle: Choice = (place) => (firstEighth(place) || lastEighth(place) ? undefined : "IQ3_XXS");

const small = {
  head: "Q5_K",
  embedding: "Q2_K",
  attn_v: shared("Q4_K", "Q2_K"),
  ffn_down: where(firstEighth, "Q2_K"),
} as const;
const two = {
  head: "Q5_K",
  embedding: "IQ3_S",
  attn_v: shared("Q4_K", "IQ3_S"),
  attn_output: "IQ3_S",
  ffn_down: where(firstEighth, "IQ3_S"),
} as const;

const mixtures = {
  F32: { base: "F32" },
  F16: { base: "F16" },
  BF16: { base: "BF16" },
  Q8_0: { base: "Q8_0", head: "Q8_0" },
  Q6_K: { base: "Q6_K" },
  Q5_K_M: { base: "Q5_K", attn_v: where(favoured, "Q6_K"), ffn_down: where(favoured, "Q6_K") },
  Q5_K_S: { base: "Q5_K" },
  Q5_1: { base: "Q5_1" },
  Q5_0: { base: "Q5_0", ffn_down: where((place) => place.imatrix && firstEighth(place), "Q5_1") },
  Q4_K_M: { base: "Q4_K", attn_v: where(favoured, "Q6_K"), ffn_down: where(favoured, "Q6_K") },
  Q4_K_S: { base: "Q4_K", attn_v: where(({ index }) => index < 4, "Q5_K"), ffn_down: where(firstEighth, "Q5_K") },
  Q4_1: { base: "Q4_1" },
  Q4_0: { base: "Q4_0", ffn_down: where((place) => place.imatrix && firstEighth(place), "Q4_1") },
  IQ4_NL: {
    base: "IQ4_NL",
    attn_v: shared("Q5_K"),
    ffn_down: where((place) => !place.imatrix && firstEighth(place), "Q5_K"),
  },
  IQ4_XS: {
    base: "IQ4_XS",
    attn_v: shared("Q5_K"),
    ffn_down: where((place) => !place.imatrix && firstEighth(place), "Q5_K"),
  },
  Q3_K_L: { base: "Q3_K", attn_v: "Q5_K", attn_output: "Q5_K", ffn_down: "Q5_K" },
  Q3_K_M: {
    base: "Q3_K",
    attn_v: ({ index }) => (index < 2 ? "Q5_K" : "Q4_K"),
    attn_output: "Q4_K",
    ffn_down: (place) => (sixteenth(place) ? "Q5_K" : "Q4_K"),
  },
  Q3_K_S: { base: "Q3_K" },
  IQ3_M: { base: "IQ3_S", attn_v: "Q4_K", attn_output: "Q4_K", ffn_down: where(firstEighth, "Q4_K") },
  IQ3_S: { base: "IQ3_S", attn_v: shared("Q4_K") },
  IQ3_XS: {
    base: "IQ3_S",
    attn_v: shared("Q4_K"),
    attn_q: "IQ3_XXS",
    attn_k: "IQ3_XXS",
    ffn_gate: middle,
    ffn_up: middle,
  },
  IQ3_XXS: {
    base: "IQ3_XXS",
    head: "Q5_K",
    embedding: "IQ3_S",
    attn_v: ({ shared: many, imatrix }) => (many ? "Q4_K" : imatrix ? undefined : "IQ3_S"),
    attn_q: "IQ2_S",
    attn_k: "IQ2_S",
    attn_output: "IQ3_S",
    ffn_down: (place) => (place.imatrix ? undefined : firstEighth(place) ? "Q4_K" : "Q3_K"),
  },
  Q2_K: { base: "Q2_K", attn_v: shared("Q4_K", "Q3_K"), attn_output: "Q3_K", ffn_down: "Q3_K" },
  Q2_K_S: { base: "Q2_K", attn_v: shared("Q4_K"), ffn_down: where(firstEighth, "Q4_K") },
  IQ2_M: { base: "IQ2_S", ...two },
  IQ2_S: { base: "IQ2_XS", ...two },
  IQ2_XS: { base: "IQ2_XS", ...small },
  IQ2_XXS: { base: "IQ2_XXS", ...small },
  IQ1_M: { base: "IQ1_M", ...small, attn_output: "IQ2_XXS" },
  IQ1_S: { base: "IQ1_S", ...small, attn_output: "IQ2_XXS" },
  TQ2_0: { base: "TQ2_0", embedding: "Q4_K" },
  TQ1_0: { base: "TQ1_0", embedding: "Q4_K" },
} as const satisfies Record<string, Mixture>;

/** A llama.cpp file type, such as `Q4_K_M`. */
export type FileType = keyof typeof mixtures;

/** All file types, the largest first. */
export const fileTypes = Object.keys(mixtures) as FileType[];

/** File types that the quantiser refuses to make without an importance matrix. */
export const needsImatrix: readonly FileType[] = [
  "IQ3_XXS",
  "IQ2_M",
  "IQ2_S",
  "IQ2_XS",
  "IQ2_XXS",
  "IQ1_M",
  "IQ1_S",
  "Q2_K_S",
];

export interface FileTypeOptions {
  /** Made with an importance matrix. Defaults to false, true for the types that need one. */
  imatrix?: boolean;
  /** Of the output head, in place of the mixture's. */
  head?: QuantType;
  /** Of the embedding table, in place of the mixture's; it wins where the table is the head too. */
  embedding?: QuantType;
  /** Of single tensors by name, in place of the mixture's; undefined leaves the choice to the mixture. */
  override?: (tensor: string) => QuantType | undefined;
}

export interface TypedTensor extends PlannedTensor {
  type: QuantType;
}

/** The type of every tensor of a model in a file of that type. */
export function typedTensors(shape: ModelShape, fileType: FileType, options: FileTypeOptions = {}): TypedTensor[] {
  const mixture: Mixture = mixtures[fileType];
  const { imatrix = needsImatrix.includes(fileType) } = options;
  const tensors = ggufTensors(shape);
  const context = contextOf(shape, tensors, fileType, imatrix);
  const seen = new Map<TensorRole, number>();
  return tensors.map((tensor) => {
    const { role } = tensor;
    if (role === "kept") return { ...tensor, type: "F32" };
    const stated = role === "head" ? options.head : role === "embedding" ? options.embedding : undefined;
    if (stated) return { ...tensor, type: stated };
    if (!isQuantised(mixture.base)) return { ...tensor, type: mixture.base };
    const override = options.override?.(tensor.name);
    if (override) return { ...tensor, type: fittingType(override, tensor) };
    const index = seen.get(role) ?? 0;
    seen.set(role, index + 1);
    const type = isHead(role, shape)
      ? (options.head ?? headType(mixture, tensor))
      : context.typeOf(mixture, role, index);
    return { ...tensor, type: fittingType(type, tensor) };
  });
}

/** Bytes of all tensors of a GGUF file of that type, each padded to the next one: what follows the header. */
export function fileTypeBytes(shape: ModelShape, fileType: FileType, options: FileTypeOptions = {}): number {
  return typedTensors(shape, fileType, options).reduce((sum, tensor) => sum + tensorBytes(tensor), 0);
}

const alignment = 32;

/** Bytes of a tensor with the padding to the next. */
export function tensorBytes({ type, shape }: Pick<TypedTensor, "type" | "shape">): number {
  const { block, bytes } = layoutOf(type);
  const elements = shape.reduce((a, b) => a * b, 1);
  return Math.ceil(((elements / block) * bytes) / alignment) * alignment;
}

const layouts = new Map<string, { block: number; bytes: number }>(
  Object.values(tensorTypes).map((type) => [type.name, type]),
);
const layoutOf = (type: QuantType) => layouts.get(type)!;

const isQuantised = (type: QuantType) => layoutOf(type).block > 1;

/** A tied embedding is quantised as the head that it is. */
const isHead = (role: TensorRole, { tiedEmbeddings }: ModelShape) =>
  role === "head" || (role === "embedding" && tiedEmbeddings);

function headType({ base, head = "Q6_K" }: Mixture, { shape }: PlannedTensor): QuantType {
  const divides = shape.at(-1)! % layoutOf(base).block === 0;
  return divides ? (head as QuantType) : "Q8_0";
}

/** File types of at most two bits and a half, which have a rule of their own for experts and none for the 70B shape. */
const lowest: readonly FileType[] = ["IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"];

/** What holds for all tensors of the file: sharing of heads, and the shapes that the quantiser treats by name. */
function contextOf(shape: ModelShape, tensors: readonly PlannedTensor[], fileType: FileType, imatrix: boolean) {
  const sharing = headsPerGroup(shape);
  const low = lowest.includes(fileType);
  const manyExperts = (shape.experts?.count ?? 1) >= 4;
  const is70B = isLlama70B(shape);
  const values = tensors.filter(({ role }) => role === "attn_v").length;

  const typeOf = (mixture: Mixture, role: TensorRole, index: number): QuantType => {
    const count = role === "attn_v" ? values : shape.blocks.length;
    const place = { index, count, imatrix, shared: sharing >= 4 || (low && manyExperts) };
    const choice = mixture[role];
    const type = (typeof choice === "function" ? choice(place) : choice) ?? mixture.base;
    if (shape.experts?.count === 8) return ofEightExperts(fileType, low, role, place) ?? type;
    if (is70B && !low && role === "attn_v" && (type === "Q3_K" || type === "Q4_K")) return "Q5_K";
    return type;
  };
  return { typeOf };
}

/** Query heads that share one key/value head in the first layer, 0 without attention there. */
function headsPerGroup({ heads, blocks }: ModelShape): number {
  const attention = blocks[0]?.attention;
  return attention?.kind === "gqa" ? Math.floor(heads / attention.kvHeads) : 0;
}

/** The quantiser knows Llama 2 70B and what descends from it by its 80 layers. */
function isLlama70B(shape: ModelShape): boolean {
  if (shape.blocks.length !== 80) return false;
  return shape.architecture === "deci" || (shape.architecture === "llama" && headsPerGroup(shape) !== 1);
}

const betterOutput: readonly FileType[] = [
  "Q2_K",
  "IQ3_XS",
  "IQ3_XXS",
  "Q3_K_S",
  "Q3_K_M",
  "IQ4_NL",
  "Q4_K_S",
  "Q4_K_M",
  "IQ3_S",
  "IQ3_M",
  "IQ4_XS",
];

/** Attention is a small part of a model of eight experts and gets more bits. */
function ofEightExperts(fileType: FileType, low: boolean, role: TensorRole, place: Place): QuantType | undefined {
  if (low) return role === "attn_k" ? "Q4_K" : role === "attn_output" ? "Q5_K" : undefined;
  if (role === "attn_k" || role === "attn_v") return "Q8_0";
  if (role === "attn_output") return betterOutput.includes(fileType) ? "Q5_K" : mixtures[fileType].base;
  if (role === "ffn_down" && fileType === "IQ3_M" && favoured(place)) return "Q4_K";
  return undefined;
}

/** Rows that a type's blocks do not divide get a type of smaller blocks, and F16 where those do not divide them either. */
export function fittingType(type: QuantType, { shape }: Pick<PlannedTensor, "shape">): QuantType {
  const width = shape.at(-1)!;
  if (width % layoutOf(type).block === 0) return type;
  const smaller = smallerBlocks(type);
  return width % layoutOf(smaller).block === 0 ? smaller : "F16";
}

function smallerBlocks(type: QuantType): QuantType {
  if (type.startsWith("IQ")) return "IQ4_NL";
  const known: Partial<Record<QuantType, QuantType>> = { Q4_K: "Q5_0", Q5_K: "Q5_1", Q6_K: "Q8_0" };
  return known[type] ?? (layoutOf(type).block > 32 ? "Q4_0" : type);
}

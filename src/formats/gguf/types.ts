/**
 * @module The numbers of the GGUF format: tensor types with their block sizes, and metadata value types.
 * https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */

export interface TensorType {
  name: string;
  /** Elements of one block. */
  block: number;
  /** Bytes of one block. */
  bytes: number;
}

/** Every tensor type that llama.cpp knows, by its number, so that a message can name one that is not read here. */
export const tensorTypes: Readonly<Record<number, TensorType>> = {
  0: { name: "F32", block: 1, bytes: 4 },
  1: { name: "F16", block: 1, bytes: 2 },
  2: { name: "Q4_0", block: 32, bytes: 18 },
  3: { name: "Q4_1", block: 32, bytes: 20 },
  6: { name: "Q5_0", block: 32, bytes: 22 },
  7: { name: "Q5_1", block: 32, bytes: 24 },
  8: { name: "Q8_0", block: 32, bytes: 34 },
  9: { name: "Q8_1", block: 32, bytes: 36 },
  10: { name: "Q2_K", block: 256, bytes: 84 },
  11: { name: "Q3_K", block: 256, bytes: 110 },
  12: { name: "Q4_K", block: 256, bytes: 144 },
  13: { name: "Q5_K", block: 256, bytes: 176 },
  14: { name: "Q6_K", block: 256, bytes: 210 },
  15: { name: "Q8_K", block: 256, bytes: 292 },
  16: { name: "IQ2_XXS", block: 256, bytes: 66 },
  17: { name: "IQ2_XS", block: 256, bytes: 74 },
  18: { name: "IQ3_XXS", block: 256, bytes: 98 },
  19: { name: "IQ1_S", block: 256, bytes: 50 },
  20: { name: "IQ4_NL", block: 32, bytes: 18 },
  21: { name: "IQ3_S", block: 256, bytes: 110 },
  22: { name: "IQ2_S", block: 256, bytes: 82 },
  23: { name: "IQ4_XS", block: 256, bytes: 136 },
  24: { name: "I8", block: 1, bytes: 1 },
  25: { name: "I16", block: 1, bytes: 2 },
  26: { name: "I32", block: 1, bytes: 4 },
  27: { name: "I64", block: 1, bytes: 8 },
  28: { name: "F64", block: 1, bytes: 8 },
  29: { name: "IQ1_M", block: 256, bytes: 56 },
  30: { name: "BF16", block: 1, bytes: 2 },
  34: { name: "TQ1_0", block: 256, bytes: 54 },
  35: { name: "TQ2_0", block: 256, bytes: 66 },
  39: { name: "MXFP4", block: 32, bytes: 17 },
  40: { name: "NVFP4", block: 64, bytes: 36 },
};

/** Tensor types that can be written, with their numbers. */
export const writableTypes = { f32: 0, f16: 1, q8_0: 8, bf16: 30 } as const;
export type WritableType = keyof typeof writableTypes;

/** Bytes of a tensor of one writable type. */
export function writtenBytes(type: WritableType, elements: number): number {
  const { block, bytes } = tensorTypes[writableTypes[type]]!;
  return (elements / block) * bytes;
}

/** Metadata value types by their number in the file. */
export const valueTypes = [
  "u8",
  "i8",
  "u16",
  "i16",
  "u32",
  "i32",
  "f32",
  "bool",
  "string",
  "array",
  "u64",
  "i64",
  "f64",
] as const;
export type ValueType = (typeof valueTypes)[number];
export type ScalarType = Exclude<ValueType, "array">;

/** A metadata scalar; 64-bit integers past the safe range stay bigint. */
export type GgufScalar = number | bigint | boolean | string;

/** A metadata array: numbers of up to 32 bits and floats as typed arrays, the rest as plain arrays. */
export type GgufArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | readonly string[]
  | readonly boolean[]
  | readonly (number | bigint)[];

/** A metadata value with its type in the file. */
export type GgufEntry = { type: ScalarType; value: GgufScalar } | { type: "array"; of: ScalarType; value: GgufArray };

export type GgufMetadata = ReadonlyMap<string, GgufEntry>;

export const defaultAlignment = 32;

export function padTo(bytes: number, alignment: number): number {
  return Math.ceil(bytes / alignment) * alignment;
}

/** Numbers of `general.file_type`: which mixture of tensor types a file was made with (`llama_ftype`). */
export const fileTypeNumbers = {
  F32: 0,
  F16: 1,
  Q4_0: 2,
  Q4_1: 3,
  Q8_0: 7,
  Q5_0: 8,
  Q5_1: 9,
  Q2_K: 10,
  Q3_K_S: 11,
  Q3_K_M: 12,
  Q3_K_L: 13,
  Q4_K_S: 14,
  Q4_K_M: 15,
  Q5_K_S: 16,
  Q5_K_M: 17,
  Q6_K: 18,
  IQ2_XXS: 19,
  IQ2_XS: 20,
  Q2_K_S: 21,
  IQ3_XS: 22,
  IQ3_XXS: 23,
  IQ1_S: 24,
  IQ4_NL: 25,
  IQ3_S: 26,
  IQ3_M: 27,
  IQ2_S: 28,
  IQ2_M: 29,
  IQ4_XS: 30,
  IQ1_M: 31,
  BF16: 32,
  TQ1_0: 36,
  TQ2_0: 37,
} as const;

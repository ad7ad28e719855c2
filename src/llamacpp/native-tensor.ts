/** @module Tensors of a compute graph, read where they lie. */
import koffi from "koffi";

/** `struct ggml_tensor` of ggml.h at v0.5.0, as far as it is read. */
const offsets = { type: 0, ne: 16, op: 80, src: 152, data: 248, name: 256, end: 320 } as const;

export const typeF32 = 0;

export interface TensorFields {
  /** `ggml_type`. */
  type: number;
  /** Elements by axis, the fastest first. */
  ne: number[];
  /** `ggml_op`. */
  op: number;
  /** Addresses of the first two operands. */
  sources: [bigint, bigint];
  data: bigint;
  name: string;
}

export function readTensor(address: bigint): TensorFields {
  const bytes = koffi.view(address, offsets.end);
  const view = new DataView(bytes);
  const pointer = (at: number) => view.getBigUint64(at, true);
  const name = new Uint8Array(bytes, offsets.name, 64);
  return {
    type: view.getInt32(offsets.type, true),
    ne: [0, 1, 2, 3].map((axis) => Number(view.getBigInt64(offsets.ne + 8 * axis, true))),
    op: view.getInt32(offsets.op, true),
    sources: [pointer(offsets.src), pointer(offsets.src + 8)],
    data: pointer(offsets.data),
    name: Buffer.from(name.subarray(0, name.indexOf(0))).toString(),
  };
}

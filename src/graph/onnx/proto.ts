/**
 * A writer for the protocol buffers wire format, as much of it as ONNX models need
 * (https://protobuf.dev/programming-guides/encoding, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
 */
export interface ProtoWriter {
  varint(field: number, value: number): void;
  /** 32-bit float. */
  float(field: number, value: number): void;
  text(field: number, value: string): void;
  bytes(field: number, value: Uint8Array): void;
  message(field: number, write: (inner: ProtoWriter) => void): void;
  packedVarints(field: number, values: readonly number[]): void;
  finish(): Uint8Array;
}

const wire = { varint: 0, bytes: 2, fixed32: 5 } as const;

export function createProtoWriter(): ProtoWriter {
  const chunks: Uint8Array[] = [];
  const tag = (field: number, type: number) => chunks.push(encodeVarint(field * 8 + type));
  const block = (field: number, value: Uint8Array) => {
    tag(field, wire.bytes);
    chunks.push(encodeVarint(value.length), value);
  };
  const writer: ProtoWriter = {
    varint(field, value) {
      tag(field, wire.varint);
      chunks.push(encodeVarint(value));
    },
    float(field, value) {
      tag(field, wire.fixed32);
      chunks.push(new Uint8Array(Float32Array.of(value).buffer));
    },
    text: (field, value) => block(field, new TextEncoder().encode(value)),
    bytes: block,
    message(field, write) {
      const inner = createProtoWriter();
      write(inner);
      block(field, inner.finish());
    },
    packedVarints: (field, values) => block(field, joinBytes(values.map(encodeVarint))),
    finish: () => joinBytes(chunks),
  };
  return writer;
}

/** Base-128; negative numbers as 64-bit two's complement. */
function encodeVarint(value: number): Uint8Array {
  if (value < 0) return encodeBigVarint(BigInt.asUintN(64, BigInt(value)));
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 128) {
    bytes.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  bytes.push(rest);
  return Uint8Array.from(bytes);
}

function encodeBigVarint(value: bigint): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 128n) {
    bytes.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return Uint8Array.from(bytes);
}

function joinBytes(chunks: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    joined.set(chunk, at);
    at += chunk.length;
  }
  return joined;
}

/**
 * @module Activations on disk: raw little-endian f32, [sequences, length, width], read and written by whole sequences,
 * so that no stage ever holds the residual stream of all its text.
 */
import { type AtomicWriter, createAtomicWriter, EspalierError, internal, openFile } from "../base/index.js";
import { type F32Tensor, f32Tensor } from "../tensor/index.js";

export interface ActivationShape {
  sequences: number;
  /** Tokens of a sequence. */
  length: number;
  /** Numbers of a token. */
  width: number;
}

export interface ActivationWriter {
  /** Appends whole sequences, [batch * length, width]. */
  append(rows: F32Tensor): Promise<void>;
  commit(): Promise<void>;
  abort(): Promise<void>;
}

export interface ActivationReader extends ActivationShape {
  /** Sequences `start` to `start + count` as [count * length, width]. */
  read(start: number, count: number): Promise<F32Tensor>;
  close(): Promise<void>;
}

export async function createActivations(path: string): Promise<ActivationWriter> {
  const writer: AtomicWriter = await createAtomicWriter(path);
  return {
    append: ({ data }) => writer.write(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)),
    commit: () => writer.commit(),
    abort: () => writer.abort(),
  };
}

export async function openActivations(path: string, shape: ActivationShape): Promise<ActivationReader> {
  const source = await openFile(path);
  const { sequences, length, width } = shape;
  const bytes = length * width * 4;
  if (source.byteLength !== sequences * bytes) {
    await source.close();
    throw new EspalierError({
      where: path,
      expected: `${sequences} sequences of ${length} tokens with ${width} numbers each (${sequences * bytes} bytes)`,
      found: `${source.byteLength} bytes`,
      fix: "remove the store's work directory of this stage and run again",
    });
  }
  return {
    ...shape,
    async read(start, count) {
      if (start + count > sequences) internal(`sequences ${start} to ${start + count} of ${sequences}`);
      const raw = await source.read(start * bytes, count * bytes);
      // A view needs its bytes aligned to four.
      const { buffer, byteOffset } = raw.byteOffset % 4 === 0 ? raw : Uint8Array.from(raw);
      return f32Tensor([count * length, width], new Float32Array(buffer, byteOffset, count * length * width));
    },
    close: () => source.close(),
  };
}

/** Cuts `sequences` into batches: first sequence and count of each. */
export function batchesOf(sequences: number, batch: number): { start: number; count: number }[] {
  const starts = Array.from({ length: Math.ceil(sequences / batch) }, (_, i) => i * batch);
  return starts.map((start) => ({ start, count: Math.min(batch, sequences - start) }));
}

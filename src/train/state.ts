import { createAtomicWriter, EspalierError, openFile } from "../base/index.js";
import type { OptimiserState } from "./optim/types.js";

/** All that a training run needs in order to go on as if it had not been stopped; its step says where the data stands. */
export interface TrainState {
  /** Steps done. */
  step: number;
  parameters: Float32Array;
  optimiser: OptimiserState;
  /** Loss of each step done. */
  losses: readonly number[];
}

interface Header {
  format: 1;
  /** Of the settings; a checkpoint is only resumed by the same ones. */
  settings: string;
  step: number;
  losses: readonly number[];
  optimiser: { step: number; scalars: Record<string, number> };
  /** In the order in which they follow the header. */
  arrays: { name: string; length: number }[];
}

const magic = "ESPCKPT1";

/** Layout: 8 bytes of magic, u32 length of the header, the header as JSON, then the arrays as raw little-endian f32. */
export async function writeTrainState(path: string, settings: string, state: TrainState): Promise<void> {
  const arrays: Record<string, Float32Array> = { parameters: state.parameters, ...state.optimiser.arrays };
  const header: Header = {
    format: 1,
    settings,
    step: state.step,
    losses: state.losses,
    optimiser: { step: state.optimiser.step, scalars: state.optimiser.scalars },
    arrays: Object.entries(arrays).map(([name, { length }]) => ({ name, length })),
  };
  const json = new TextEncoder().encode(JSON.stringify(header));
  const writer = await createAtomicWriter(path);
  await writer.write(new TextEncoder().encode(magic));
  await writer.write(new Uint8Array(Uint32Array.of(json.byteLength).buffer));
  await writer.write(json);
  for (const array of Object.values(arrays)) await writer.write(bytesOf(array));
  await writer.commit();
}

/** Reads into the arrays of `state`, which must be those of a fresh run with the same settings. */
export async function readTrainState(path: string, settings: string, state: TrainState): Promise<void> {
  const source = await openFile(path);
  try {
    const start = await source.read(0, magic.length + 4);
    if (Buffer.from(start.subarray(0, magic.length)).toString("latin1") !== magic) fail(path, "a training checkpoint");
    const length = new DataView(start.buffer, start.byteOffset + magic.length).getUint32(0, true);
    const header = JSON.parse(Buffer.from(await source.read(start.length, length)).toString()) as Header;
    if (header.settings !== settings) fail(path, "a checkpoint of the same settings", "one of other settings");
    let at = start.length + length;
    const arrays: Record<string, Float32Array> = { parameters: state.parameters, ...state.optimiser.arrays };
    for (const { name, length: elements } of header.arrays) {
      const array = arrays[name];
      if (array?.length !== elements) fail(path, `array ${name} of ${array?.length} elements`, `${elements}`);
      at += await readInto(source, at, array!);
    }
    Object.assign(state, { step: header.step, losses: header.losses });
    state.optimiser.step = header.optimiser.step;
    state.optimiser.scalars = header.optimiser.scalars;
  } finally {
    await source.close();
  }
}

const pieceBytes = 1 << 24;

async function readInto(
  source: Awaited<ReturnType<typeof openFile>>,
  at: number,
  array: Float32Array,
): Promise<number> {
  const target = bytesOf(array);
  for (let done = 0; done < target.byteLength; done += pieceBytes) {
    const piece = Math.min(pieceBytes, target.byteLength - done);
    target.set(await source.read(at + done, piece), done);
  }
  return target.byteLength;
}

function bytesOf(array: Float32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function fail(where: string, expected: string, found?: string): never {
  const fix = "delete the file to start over, or use the settings it was written with";
  throw new EspalierError({ where, expected, fix, ...(found !== undefined && { found }) });
}

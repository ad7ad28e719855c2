import { createAtomicWriter, EspalierError, openFile } from "../base/index.js";
import type { Measured } from "./evaluate.js";
import type { OptimiserState } from "./optim/types.js";
import type { Settings } from "./settings.js";

/** All that a training run needs in order to go on as if it had not been stopped; its step says where the data stands. */
export interface TrainState {
  /** Steps done. */
  step: number;
  parameters: Float32Array;
  /** Moving average of the parameters, where the run keeps one. */
  average?: Float32Array;
  optimiser: OptimiserState;
  /** Loss of each step done. */
  losses: readonly number[];
  measured: readonly Measured[];
  /** State of the caller's own, such as that of a generator of random numbers; plain JSON. */
  carried: unknown;
}

interface Header {
  format: 2;
  /** A checkpoint is only resumed by the same ones. */
  settings: Settings;
  step: number;
  losses: readonly number[];
  measured: readonly Measured[];
  carried?: unknown;
  optimiser: { step: number; scalars: Record<string, number> };
  /** In the order in which they follow the header. */
  arrays: { name: string; length: number }[];
}

type Source = Awaited<ReturnType<typeof openFile>>;

const magic = "ESPCKPT1";

function arraysOf({ parameters, average, optimiser }: TrainState): Record<string, Float32Array> {
  return { parameters, ...(average && { average }), ...optimiser.arrays };
}

/** Layout: 8 bytes of magic, u32 length of the header, the header as JSON, then the arrays as raw little-endian f32. */
export async function writeTrainState(path: string, settings: Settings, state: TrainState): Promise<void> {
  const arrays = arraysOf(state);
  const header: Header = {
    format: 2,
    settings,
    step: state.step,
    losses: state.losses,
    measured: state.measured,
    carried: state.carried,
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
export async function readTrainState(path: string, settings: Settings, state: TrainState): Promise<void> {
  await withHeader(path, async (source, header, start) => {
    checkSettings(path, header.settings, settings);
    await readArrays(source, header, start, arraysOf(state));
    const { step, losses, measured, carried } = header;
    Object.assign(state, { step, losses: [...losses], measured: [...measured], carried });
    state.optimiser.step = header.optimiser.step;
    state.optimiser.scalars = header.optimiser.scalars;
  });
}

/**
 * Reads the parameters of a checkpoint, the averaged ones where there is an average: those that were measured.
 *
 * @returns steps done
 * @throws EspalierError when the checkpoint is of another number of parameters
 */
export async function readTrainedParameters(path: string, parameters: Float32Array): Promise<number> {
  return withHeader(path, async (source, header, start) => {
    const wanted = header.arrays.some(({ name }) => name === "average") ? "average" : "parameters";
    await readArrays(source, header, start, { [wanted]: parameters }, wanted);
    return header.step;
  });
}

async function withHeader<T>(
  path: string,
  work: (source: Source, header: Header, start: number) => Promise<T>,
): Promise<T> {
  const source = await openFile(path);
  try {
    const start = await source.read(0, magic.length + 4);
    if (Buffer.from(start.subarray(0, magic.length)).toString("latin1") !== magic) fail(path, "a training checkpoint");
    const length = new DataView(start.buffer, start.byteOffset + magic.length).getUint32(0, true);
    const header = JSON.parse(Buffer.from(await source.read(start.length, length)).toString()) as Header;
    if (header.format !== 2) fail(path, "a checkpoint of format 2", `format ${header.format}`);
    return await work(source, header, start.length + length);
  } finally {
    await source.close();
  }
}

function checkSettings(path: string, stored: Settings, given: Settings): void {
  for (const name in given) {
    if (stored[name] === given[name]) continue;
    fail(path, `a checkpoint of the same run, ${name}: ${given[name]}`, `${name}: ${stored[name] ?? "none"}`);
  }
}

/** Fills arrays by name; `only` leaves the others of the file aside. */
async function readArrays(
  source: Source,
  header: Header,
  start: number,
  arrays: Readonly<Record<string, Float32Array>>,
  only?: string,
): Promise<void> {
  let at = start;
  for (const { name, length } of header.arrays) {
    const array = arrays[name];
    if (only === undefined || only === name) {
      if (array?.length !== length) fail(source.name, `array ${name} of ${array?.length} elements`, `${length}`);
      await readInto(source, at, array!);
    }
    at += 4 * length;
  }
}

const pieceBytes = 1 << 24;

async function readInto(source: Source, at: number, array: Float32Array): Promise<void> {
  const target = bytesOf(array);
  for (let done = 0; done < target.byteLength; done += pieceBytes) {
    const piece = Math.min(pieceBytes, target.byteLength - done);
    target.set(await source.read(at + done, piece), done);
  }
}

function bytesOf(array: Float32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function fail(where: string, expected: string, found?: string): never {
  const fix = "delete the file to start over, or use the model and the settings it was written with";
  throw new EspalierError({ where, expected, fix, ...(found !== undefined && { found }) });
}

import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Graph } from "../graph/index.js";
import type { Runtime } from "./runtime.js";
import type { Tensors } from "./session.js";

export interface OperatorTime {
  /** ONNX operator. */
  op: string;
  /** Per run. */
  milliseconds: number;
  /** Nodes of this operator in one run. */
  count: number;
}

export interface NodeTime extends OperatorTime {
  node: string;
  /** Shapes of its inputs. */
  inputs: string;
}

export interface Profile {
  /** Summed by operator, longest first. */
  operators: OperatorTime[];
  /** Each node, longest first. */
  nodes: NodeTime[];
}

/** Where the time of a graph goes: runs it with ONNX Runtime's own profiler, which slows it down a little. */
export async function profileProgram(
  runtime: Runtime,
  graph: Graph,
  feeds: Tensors,
  { runs = 3, into = {} }: { runs?: number; into?: Tensors } = {},
): Promise<Profile> {
  const folder = await mkdtemp(join(tmpdir(), "espalier-profile-"));
  try {
    const program = await runtime.compile(graph, { profilePrefix: join(folder, "trace") });
    for (let i = 0; i < warmUp + runs; i++) await program.run(feeds, into);
    await program.dispose();
    const [file] = await readdir(folder);
    const events = JSON.parse(await readFile(join(folder, file!), "utf8")) as TraceEvent[];
    return summarise(events, runs);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The first run finds out what memory the program needs, the second touches it; both are slower than those after. */
const warmUp = 2;

/** The part of the Chrome trace format that ONNX Runtime writes. */
interface TraceEvent {
  cat: string;
  name: string;
  /** Microseconds. */
  dur: number;
  args?: { op_name?: string; input_type_shape?: unknown };
}

function summarise(events: readonly TraceEvent[], runs: number): Profile {
  const kernels = events.filter(({ cat, name }) => cat === "Node" && name.endsWith("_kernel_time"));
  const steady = kernels.slice((kernels.length * warmUp) / (warmUp + runs));
  const operators = new Map<string, OperatorTime>();
  const nodes = new Map<string, NodeTime>();
  for (const { name, dur, args } of steady) {
    const op = args?.op_name ?? "?";
    const entry = { op, milliseconds: 0, count: 0 };
    add(operators, op, entry, dur / 1000 / runs, 1 / runs);
    const node = name.replace(/_kernel_time$/, "");
    const inputs = JSON.stringify(args?.input_type_shape ?? []);
    add(nodes, node, { ...entry, node, inputs }, dur / 1000 / runs, 1 / runs);
  }
  return { operators: sorted(operators), nodes: sorted(nodes) };
}

function add<T extends OperatorTime>(
  table: Map<string, T>,
  key: string,
  empty: T,
  milliseconds: number,
  count: number,
) {
  const entry = table.get(key) ?? { ...empty, milliseconds: 0, count: 0 };
  entry.milliseconds += milliseconds;
  entry.count += count;
  table.set(key, entry);
}

function sorted<T extends OperatorTime>(table: Map<string, T>): T[] {
  return [...table.values()].sort((a, b) => b.milliseconds - a.milliseconds);
}

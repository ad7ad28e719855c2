import { createGraph } from "../graph/index.js";
import { loraNames, type ModelConfig, modelWeights } from "../models/index.js";
import type { Program, Runtime } from "../runtime/index.js";
import { type F32Tensor, f32Tensor } from "../tensor/index.js";
import type { Tuning } from "./tuning.js";

/** The weights of a model that is being trained, for a program that knows no adapters, such as a sampler. */
export interface LiveWeights {
  /** By the names of the model's own weights. Those that an adapter changes lie in arrays of their own, the others are shared. */
  readonly tensors: Readonly<Record<string, F32Tensor>>;
  /** Brings them up to the parameters as they are now, in place: W + (alpha / r) B A. Nothing to do without an adapter. */
  update(): Promise<void>;
}

/** Holds a second copy of the matrices that have an adapter; call `update` before the first use. */
export function createLiveWeights(
  runtime: Runtime,
  config: ModelConfig,
  { lora, weights }: Pick<Tuning, "lora" | "weights">,
): LiveWeights {
  const all = weights() as Record<string, F32Tensor>;
  const names = modelWeights(config).map(({ name }) => name);
  if (!lora) return { tensors: pick(all, names), update: async () => {} };
  const adapted = names.filter((name) => all[adapterOf(name).a]);
  const merged = Object.fromEntries(adapted.map((name) => [name, f32Tensor(all[name]!.shape)]));
  const programs = new Map<string, Promise<Program>>();
  const programFor = ([out, inner]: readonly number[]) => {
    const key = `${out} ${inner}`;
    const known = programs.get(key) ?? runtime.compile(mergeGraph(out!, inner!, lora.rank, lora.alpha / lora.rank));
    programs.set(key, known);
    return known;
  };
  return {
    tensors: { ...pick(all, names), ...merged },
    async update() {
      for (const name of adapted) {
        const { a, b } = adapterOf(name);
        const program = await programFor(all[name]!.shape);
        await program.run({ weight: all[name]!, a: all[a]!, b: all[b]! }, { merged: merged[name]! });
      }
    },
  };
}

const adapterOf = (name: string) => loraNames(name.replace(/\.weight$/, ""));

const pick = (tensors: Record<string, F32Tensor>, names: readonly string[]) =>
  Object.fromEntries(names.map((name) => [name, tensors[name]!]));

/** merged [out, in] = weight + factor b [out, r] a [r, in] */
function mergeGraph(out: number, inner: number, rank: number, factor: number) {
  const g = createGraph(`merge_${out}_${inner}_${rank}`);
  const product = g.matmul(g.scale(g.input("b", [out, rank]), factor), g.input("a", [rank, inner]));
  g.output("merged", g.add(g.input("weight", [out, inner]), product));
  return g;
}

/** @module What a checkpoint must agree with before a run goes on from it, in words that an error can use. */
import { digestJson } from "../base/index.js";
import type { Tensors } from "../runtime/index.js";
import type { TrainOptions } from "./loop.js";
import { constant } from "./schedule.js";

/** Values by the name of the option; compared one by one. */
export type Settings = Readonly<Record<string, string>>;

export function settingsOf(options: TrainOptions, steps: number): Settings {
  const { stage, parameters, optimiser, accumulate = 1, learningRate, schedule = constant(), clip = 1 } = options;
  const { average, evaluate, frozen = {} } = options;
  // A schedule is a function; its values at a few places stand for it.
  const rates = [0, 1, steps >> 1, steps - 1].map((step) => schedule(step, steps));
  const places = parameters.layout.places.map(({ name, shape }) => [name, shape]);
  return {
    stage,
    parameters: `${places.length} tensors, ${parameters.layout.size} values, digest ${digestJson(places).slice(0, 12)}`,
    "frozen weights": fingerprint(frozen),
    optimiser: optimiser.description,
    steps: String(steps),
    accumulate: String(accumulate),
    learningRate: String(learningRate),
    schedule: rates.join(", "),
    clip: String(clip),
    average: average ? String(average.decay) : "none",
    evaluate: evaluate ? JSON.stringify({ ...evaluate, of: undefined }) : "none",
  };
}

const sampled = 64;

/** Tells models apart by name, shape and some values of each tensor, without reading all of them. */
function fingerprint(tensors: Tensors): string {
  const parts = Object.entries(tensors).map(([name, { shape, data }]) => {
    const stride = Math.max(1, Math.floor(data.length / sampled));
    return [name, shape, Array.from({ length: Math.min(sampled, data.length) }, (_, i) => String(data[i * stride]))];
  });
  return parts.length === 0 ? "none" : `${parts.length} tensors, digest ${digestJson(parts).slice(0, 12)}`;
}

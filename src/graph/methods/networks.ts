import { EspalierError } from "../../base/index.js";
import { f32Tensor, type HostTensor } from "../../tensor/index.js";
import type { GraphCore } from "../builder.js";
import type { RotaryPairing } from "../ops/params.js";
import type { Value } from "../types.js";
import { createApply } from "./apply.js";
import { movementMethods } from "./arrays.js";

export interface RotaryOptions {
  /** Features that turn together: "half" (Hugging Face) or "adjacent" (llama.cpp `llama`). Defaults to "half". */
  pairing?: RotaryPairing;
}

export interface AttentionOptions {
  /** Factor of the scores. Defaults to 1 / sqrt(D). */
  scale?: number;
  /** Query t sees keys up to t + S - T. Defaults to false. */
  causal?: boolean;
  /** Additive mask [T, S] or [B, T, S] (0, or a large negative number); excludes `causal`. */
  mask?: Value;
}

/** Score of a masked pair: its exponential is zero in f32, and sums with it stay finite. */
export const maskedScore = -1e30;

export function networkMethods(core: GraphCore) {
  const { one, unary } = createApply(core);
  return {
    /** Over the last axis. */
    softmax: unary("softmax"),
    /** Over the last axis. */
    logSoftmax: unary("logSoftmax"),
    /** x / rms(x) w over the last axis. */
    rmsNorm: (x: Value, w: Value, eps: number) => one("rmsNorm", [x, w], { eps }),
    layerNorm: (x: Value, w: Value, b: Value, eps: number) => one("layerNorm", [x, w, b], { eps }),
    /** x [B, heads, T, D]; cos and sin [B or 1, T, D/2]. */
    rotary: (x: Value, cos: Value, sin: Value, { pairing = "half" }: RotaryOptions = {}) =>
      one("rotary", [x, cos, sin], { pairing }),
  };
}

export function attentionMethods(core: GraphCore) {
  const { one } = createApply(core);
  const { reshape } = movementMethods(core);
  return {
    /** q [B, heads, T, D], k [B, kv, S, D], v [B, kv, S, Dv]: [B, heads, T, Dv]; heads h reads kv head h div (heads / kv). */
    attention: (q: Value, k: Value, v: Value, { scale, causal = false, mask }: AttentionOptions = {}) => {
      const [batch, heads, length, width] = q.shape as [number, number, number, number];
      const [kv, keys] = [k.shape[1]!, k.shape[2]!];
      requireGroups(heads, kv);
      if (causal) requireCausal(length, keys, mask);
      const group = heads / kv;
      const additive = mask ?? (causal && length > 1 ? core.constant(causalMask(length, keys)) : undefined);
      const grouped = reshape(q, [batch, kv, group * length, width]);
      const params = { scale: scale ?? 1 / Math.sqrt(width), group };
      const out = one("attention", additive ? [grouped, k, v, additive] : [grouped, k, v], params);
      return reshape(out, [batch, heads, length, v.shape[3]!]);
    },
  };
}

function requireGroups(heads: number, kv: number): void {
  if (heads % kv === 0) return;
  throw new EspalierError({ where: "graph: attention, k", expected: `kv heads that divide ${heads}`, found: `${kv}` });
}

function requireCausal(length: number, keys: number, mask: Value | undefined): void {
  if (mask) {
    throw new EspalierError({ where: "graph: attention, mask", expected: "`causal` or a mask", found: "both" });
  }
  if (keys >= length) return;
  const expected = `at least ${length} keys for as many causal queries`;
  throw new EspalierError({ where: "graph: attention, k", expected, found: `${keys}` });
}

/** [length, keys]: 0 where key <= query + keys - length, else {@link maskedScore}. */
export function causalMask(length: number, keys = length): HostTensor {
  const data = new Float32Array(length * keys);
  for (let t = 0; t < length; t++) data.fill(maskedScore, t * keys + t + keys - length + 1, (t + 1) * keys);
  return f32Tensor([length, keys], data);
}

export function controlMethods(core: GraphCore) {
  const { one, unary } = createApply(core);
  return {
    /**
     * x, computed into anything only when `others` are done; bounds how many large values are alive at one time.
     * Others that nothing else needs are dropped by `optimise`.
     */
    after: (x: Value, others: readonly Value[]) => (others.length === 0 ? x : one("after", [x, ...others], {})),
    /** The value of x; no gradient flows to it. */
    stopGradient: unary("stopGradient"),
    /** The value of a scalar whose gradients are given: pairs of x and d value / d x. */
    withGradient: (value: Value, pairs: readonly (readonly [x: Value, gradient: Value])[]) =>
      one("withGradient", [value, ...pairs.flat()], {}),
  };
}

/** @module What holds of the losses for any numbers: limits, edges, packing, micro batches, sorting. */
import { describe, expect, test } from "vitest";
import { createRng } from "../base/index.js";
import { createGraph, gradients, interpret, type Value } from "../graph/index.js";
import { createRuntime } from "../runtime/index.js";
import { f32Tensor, type HostTensor } from "../tensor/index.js";
import * as align from "./index.js";
import { buildLoss, type Computed, type Inputs, inFloat64, inRuntime, membershipOf, type Nested } from "./testing.js";

const random = (count: number, from: number, to: number, seed: number) => {
  const rng = createRng(seed);
  return Array.from({ length: count }, () => from + (to - from) * rng.next());
};

/** Pairs whose references are 0 and whose answers have 7 and 5 tokens. */
function pairsOf({ g, input }: Inputs, chosen: number[], rejected: number[]) {
  const fill = (value: number) => g.fill([chosen.length], value);
  const pairs = { chosen: input(chosen), rejected: input(rejected), refChosen: fill(0), refRejected: fill(0) };
  return { ...pairs, chosenLengths: fill(7), rejectedLengths: fill(5) };
}

/** Parameters without which a kind refuses to work. */
const smoothingOf = (kind: align.PreferenceKind) => ({ labelSmoothing: kind === "exo_pair" ? 1e-3 : 0 });

describe("preference losses", () => {
  test.each(align.preferenceKinds)(
    "%s is finite, with its gradients, at |D| up to 1e4, in float32 too",
    async (kind) => {
      const extreme = [1e4, -1e4, 0, 500, -500];
      const loss = buildLoss((t) => {
        const pairs = pairsOf(t, extreme, [...extreme].reverse());
        const { loss, perPair } = align.preferenceLoss(t.g, pairs, { kind, ...smoothingOf(kind) });
        return {
          values: { loss, perPair },
          gradients: { c: [loss, pairs.chosen], l: [loss, pairs.rejected] },
        };
      });
      const runtime = await createRuntime({ threads: 1 });
      for (const results of [inFloat64(loss), await inRuntime(runtime, loss)]) {
        for (const [name, values] of Object.entries(results)) {
          expect(values.every(Number.isFinite), `${name}: ${values}`).toBe(true);
        }
      }
      await runtime.dispose();
    },
  );

  test.each(["forward_kl", "js_divergence", "alpha_divergence"] as const)("%s is finite at 1e4", (divergence) => {
    const { l, c } = inFloat64(
      buildLoss((t) => {
        const pairs = pairsOf(t, [1e4, -1e4, 3], [-1e4, 1e4, 2]);
        const { loss } = align.preferenceLoss(t.g, pairs, { divergence });
        return { values: { l: loss }, gradients: { c: [loss, pairs.chosen] } };
      }),
    );
    expect([...l!, ...c!].every(Number.isFinite)).toBe(true);
  });

  test("alpha divergence tends to DPO for alpha to 1", () => {
    const at = (alpha: number) =>
      inFloat64(
        buildLoss((t) => {
          const pairs = pairsOf(t, [2, -1], [1, 3]);
          return { values: { l: align.preferenceLoss(t.g, pairs, { divergence: "alpha_divergence", alpha }).loss } };
        }),
      ).l![0]!;
    expect(at(1 + 1e-6)).toBeCloseTo(at(1), 5);
  });

  test("a robust loss that expects no errors is DPO; the conventions of IPO differ by the lengths", () => {
    const { robust, dpo, trl, aligner } = inFloat64(
      buildLoss((t) => {
        const pairs = pairsOf(t, [2], [-3]);
        const of = (options: align.PreferenceOptions) =>
          align.preferenceLoss(t.g, pairs, { beta: 0.5, ...options }).loss;
        return {
          values: {
            robust: of({ kind: "robust" }),
            dpo: of({}),
            trl: of({ kind: "ipo" }),
            aligner: of({ kind: "ipo", compat: "aligner" }),
          },
        };
      }),
    );
    expect(robust![0]).toBeCloseTo(dpo![0]!, 12);
    expect(dpo![0]).toBeCloseTo(Math.log1p(Math.exp(-2.5)), 12);
    expect(trl![0]).toBeCloseTo((2 / 7 + 3 / 5 - 1) ** 2, 6);
    expect(aligner![0]).toBeCloseTo((5 - 1) ** 2, 6);
  });

  test("pairs that do not count change nothing, in losses that sort as well", () => {
    for (const kind of align.preferenceKinds) {
      const of = (chosen: number[], rejected: number[], weights: number[]) =>
        inFloat64(
          buildLoss((t) => {
            const pairs = pairsOf(t, chosen, rejected);
            const options = { kind, ...smoothingOf(kind), weights: t.input(weights) };
            const { loss, accuracy } = align.preferenceLoss(t.g, pairs, options);
            return { values: { loss, accuracy }, gradients: { c: [loss, pairs.chosen] } };
          }),
        );
      const alone = of([1, -2, 0.5], [0, 1, 0.25], [1, 1, 1]);
      const padded = of([1, -9, -2, 50, 0.5], [0, 7, 1, -3, 0.25], [1, 0, 1, 0, 1]);
      expect(padded.loss![0], kind).toBeCloseTo(alone.loss![0]!, 12);
      expect(padded.accuracy![0]).toBeCloseTo(2 / 3, 12);
      [0, 2, 4].forEach((at, i) => {
        expect(padded.c![at], kind).toBeCloseTo(alone.c![i]!, 12);
      });
      expect([padded.c![1]! + 0, padded.c![3]! + 0]).toEqual([0, 0]);
      expect(of([1, 2], [0, 0], [0, 0]).loss).toEqual([0]);
    }
  });

  test("options that contradict are refused", () => {
    const make = (options: align.PreferenceOptions) => () =>
      buildLoss((t) => {
        const { chosenLengths: _, ...pairs } = pairsOf(t, [1], [0]);
        return { values: { l: align.preferenceLoss(t.g, pairs, options).loss } };
      });
    expect(make({ labelSmoothing: 0.1 })).toThrow("cdpo is sigmoid with label smoothing");
    expect(make({ kind: "robust", labelSmoothing: 0.5 })).toThrow("less than 0.5");
    expect(make({ kind: "exo_pair" })).toThrow("between 0 and 1");
    expect(make({ kind: "ipo" })).toThrow("chosenLengths");
    expect(make({ kind: "aot", divergence: "js_divergence" })).toThrow("aot_unpaired takes both");
    expect(make({ beta: 0 })).toThrow("above 0");
    expect(make({ kind: "dpo" as align.PreferenceKind })).toThrow("sigmoid, sigmoid_norm");
  });
});

describe("reward-aware losses", () => {
  const distances = ["bwd_kl", "fwd_kl", "sq"] as const;
  const at = (distance: align.RewardDistance, policy: number[], target: number[]) =>
    inFloat64(
      buildLoss(({ g, input }) => {
        const x = input(policy);
        const perPair = align.rewardDistance(g, x, input(target), distance);
        return { values: { perPair }, gradients: { slope: [g.sum(perPair), x] } };
      }),
    );

  test.each(distances)("%s: 0 with slope 0 where the gaps agree, positive elsewhere", (distance) => {
    const gaps = random(40, -30, 30, 1);
    const { perPair, slope } = at(distance, gaps, gaps);
    expect(Math.max(...perPair!.map(Math.abs), ...slope!.map(Math.abs))).toBeLessThan(1e-15);
    const off = at(
      distance,
      gaps,
      gaps.map((gap) => gap + 0.5),
    );
    expect(Math.min(...off.perPair!)).toBeGreaterThan(0);
  });

  test("the slopes are those of the formulas", () => {
    const [policy, target] = [random(20, -8, 8, 2), random(20, -8, 8, 3)];
    const s = (x: number) => 1 / (1 + Math.exp(-x));
    const slopes = {
      bwd_kl: (x: number, y: number) => s(x) - s(y),
      fwd_kl: (x: number, y: number) => s(x) * s(-x) * (x - y),
      sq: (x: number, y: number) => 2 * (x - y),
    };
    for (const distance of distances) {
      at(distance, policy, target).slope!.forEach((slope, i) => {
        expect(slope).toBeCloseTo(slopes[distance](policy[i]!, target[i]!), 12);
      });
    }
  });

  test("bwd_kl tends to DPO for a reward gap to infinity, and stays finite", () => {
    const policy = [...random(20, -20, 20, 4), 1e4, -1e4];
    const { perPair, slope } = at("bwd_kl", policy, Array(policy.length).fill(1e3));
    policy.forEach((x, i) => {
      expect(perPair![i]).toBeCloseTo(Math.max(-x, 0) + Math.log1p(Math.exp(-Math.abs(x))), 11);
      expect(slope![i]).toBeCloseTo(-1 / (1 + Math.exp(x)), 12);
    });
    for (const distance of distances) {
      const extreme = at(distance, [1e4, -1e4, 1e4, -1e4], [1e4, 1e4, -1e4, -1e4]);
      expect([...extreme.perPair!, ...extreme.slope!].every(Number.isFinite)).toBe(true);
    }
  });
});

describe("tokens", () => {
  const lengths = [3, 1, 4, 2];
  const width = 5;
  const mask = lengths.map((length) => Array.from({ length: width }, (_, t) => Number(t < length)));
  const padded = mask.flat();
  const policy = random(padded.length, -3, 0, 5);
  const reference = random(padded.length, -3, 0, 6);
  const packed = (x: readonly number[]) => x.filter((_, n) => padded[n]);
  const packedMembership = lengths.map((length, s) =>
    lengths.flatMap((other, o) => Array(other).fill(Number(o === s && length > 0))),
  );

  /** Value and gradient of a loss of the tokens; gradients of valid tokens alone. */
  function run(layout: "padded" | "packed", loss: (t: Inputs, group: align.TokenGroup, reference: Value) => Value) {
    const [p, r, m] =
      layout === "padded"
        ? [policy, reference, membershipOf(mask)]
        : [packed(policy), packed(reference), packedMembership];
    const { l, gradient } = inFloat64(
      buildLoss((t): Computed => {
        const group = { logProbs: t.input(p), membership: t.input(m) };
        const value = loss(t, group, t.input(r));
        return { values: { l: value }, gradients: { gradient: [value, group.logProbs] } };
      }),
    );
    return { loss: l![0]!, gradient: layout === "padded" ? packed(gradient!) : [...gradient!], all: gradient! };
  }

  const losses: Record<string, (t: Inputs, group: align.TokenGroup, reference: Value) => Value> = {
    dpo: ({ g }, group, ref) => align.preferenceLoss(g, align.pairsOfTokens(g, group, ref), {}).loss,
    ipo: ({ g }, group, ref) => align.preferenceLoss(g, align.pairsOfTokens(g, group, ref), { kind: "ipo" }).loss,
    rpo: ({ g, input }, group, ref) =>
      align.rewardAwareLoss(g, align.pairsOfTokens(g, group, ref), input([1, -0.5]), { sft: { weight: 0.1 } }).loss,
    reinforce: ({ g, input }, group) => align.reinforceLoss(g, group, input([1, -2, 0.5, 0.25])).loss,
    rloo: ({ g, input }, group, ref) => align.rlooLoss(g, group, ref, input([1, -2, 0.5, 0.25])).loss,
    ...Object.fromEntries(
      (["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "gspo", "luspo"] as const).map((type) => [
        type,
        ({ g, input }: Inputs, group: align.TokenGroup, ref: Value) =>
          align.policyLoss(
            g,
            { ...group, advantages: input([1, -2, 0.5, 0.25]), old: ref, reference: ref },
            align.trlPolicy(type, { beta: 0.1, maxLength: 8 }),
          ).loss,
      ]),
    ),
    nemoRl: ({ g, input }, group, ref) =>
      align.policyLoss(
        g,
        { ...group, advantages: input([1, -2, 0.5, 0.25]), old: ref, reference: ref, sampled: ref },
        align.nemoRlPolicy({ correction: { kind: "icepop", low: 0.5, high: 2 }, dualClip: 3 }),
      ).loss,
  };

  test.each(Object.keys(losses))("%s: packed equals padded, and padding has no gradient", (name) => {
    const [a, b] = [run("padded", losses[name]!), run("packed", losses[name]!)];
    expect(b.loss).toBeCloseTo(a.loss, 12);
    b.gradient.forEach((slope, n) => {
      expect(slope).toBeCloseTo(a.gradient[n]!, 12);
    });
    a.all.forEach((slope, n) => {
      if (!padded[n]) expect(slope + 0).toBe(0);
    });
  });

  test.each(Object.keys(losses))("%s: the gradient is that of finite differences", (name) => {
    const { gradient } = run("packed", losses[name]!);
    const at = (n: number, step: number) => {
      const x = packed(policy).map((value, i) => (i === n ? value + step : value));
      return inFloat64(
        buildLoss((t) => ({
          values: {
            l: losses[name]!(
              t,
              { logProbs: t.input(x), membership: t.input(packedMembership) },
              t.input(packed(reference)),
            ),
          },
        })),
      ).l![0]!;
    };
    // Constants in the graph that depend on the policy (cispo's weight, the score of the KL) have no difference.
    if (name === "cispo" || name === "nemoRl") return;
    for (const n of [0, 4, 9]) expect((at(n, 1e-5) - at(n, -1e-5)) / 2e-5).toBeCloseTo(gradient[n]!, 6);
  });

  test("micro batches add up to the batch where they share its denominator", () => {
    const half = (from: number, type: align.TrlLossType, count: number) =>
      inFloat64(
        buildLoss(({ g, input }) => {
          const of = (x: readonly number[]) => input(x.slice(from * width, (from + 2) * width));
          const inputs = {
            logProbs: of(policy),
            membership: input(membershipOf(mask.slice(from, from + 2))),
            advantages: input([1, -2, 0.5, 0.25].slice(from, from + 2)),
            old: of(reference),
          };
          const options = align.trlPolicy(type, { maxLength: 8, denominator: input(count as Nested) });
          return { values: { l: align.policyLoss(g, inputs, options).loss } };
        }),
      ).l![0]!;
    const whole = (type: align.TrlLossType) =>
      run(
        "padded",
        ({ g, input }, group, ref) =>
          align.policyLoss(
            g,
            { ...group, advantages: input([1, -2, 0.5, 0.25]), old: ref },
            align.trlPolicy(type, { maxLength: 8 }),
          ).loss,
      ).loss;
    const tokens = lengths.reduce((a, b) => a + b);
    for (const type of ["grpo", "dapo", "dr_grpo", "luspo", "gspo", "sapo", "cispo"] as const) {
      const count = type === "dapo" || type === "cispo" ? tokens : 4;
      expect(half(0, type, count) + half(2, type, count), type).toBeCloseTo(whole(type), 12);
    }
  });

  test("micro batches of pairs add up where they share the number of pairs", () => {
    const of = (chosen: number[], rejected: number[], pairs?: number) =>
      inFloat64(
        buildLoss((t) => {
          const options = pairs ? { denominator: t.input(pairs as Nested) } : {};
          return { values: { l: align.preferenceLoss(t.g, pairsOf(t, chosen, rejected), options).loss } };
        }),
      ).l![0]!;
    expect(of([1, 2], [0, 3], 3) + of([-1], [4], 3)).toBeCloseTo(of([1, 2, -1], [0, 3, 4]), 12);
  });

  test("sequences without tokens, or of weight 0, and a batch of them give no NaN", () => {
    for (const weights of [
      [1, 1],
      [1, 0],
      [0, 0],
    ]) {
      for (const options of [
        align.trlPolicy("grpo"),
        align.trlPolicy("dapo"),
        align.nemoRlPolicy({ kl: { beta: 0 } }),
      ]) {
        const { l, gradient } = inFloat64(
          buildLoss(({ g, input }) => {
            const logProbs = input([-1, -2, -3, -4]);
            const membership = input(membershipOf([weights, [0, 0]]));
            const inputs = { logProbs, membership, advantages: input([1, 1]), old: input([-1, -1, 900, -900]) };
            const { loss } = align.policyLoss(g, { ...inputs, weights: input(weights) }, options);
            return { values: { l: loss }, gradients: { gradient: [loss, logProbs] } };
          }),
        );
        expect([...l!, ...gradient!].every(Number.isFinite), `${weights}`).toBe(true);
      }
    }
  });

  test("options of the policy loss that contradict, or miss an input, are refused", () => {
    const make = (options: align.PolicyOptions) => () =>
      buildLoss(({ g, input }) => {
        const inputs = { logProbs: input([-1, -2]), membership: input([[1, 1]]), advantages: input([1]) };
        return { values: { l: align.policyLoss(g, inputs, options).loss } };
      });
    expect(make({})).toThrow("align: old");
    expect(make({ onPolicy: true, kl: { beta: 1 } })).toThrow("align: reference");
    expect(make({ onPolicy: true, correction: { kind: "tis" } })).toThrow("align: sampled");
    expect(make({ onPolicy: true, reduction: "length" })).toThrow("maxLength");
    expect(make({ onPolicy: true, dualClip: 0.5 })).toThrow("above 1");
    expect(make({ objective: "sapo", onPolicy: true, delta: 2 })).toThrow("objective clip");
  });

  test("delta binds where the ratio of a negative advantage exceeds it; the dual clip bounds the loss", () => {
    const { two, dual, plain } = inFloat64(
      buildLoss(({ g, input }) => {
        const inputs = { logProbs: input([0]), membership: input([[1]]), advantages: input([-1]), old: input([-2]) };
        const of = (options: align.PolicyOptions) => align.policyLoss(g, inputs, options).loss;
        return { values: { two: of({ delta: 1.5 }), dual: of({ dualClip: 3 }), plain: of({}) } };
      }),
    );
    expect([two![0], dual![0]]).toEqual([1.5, 3]);
    expect(plain![0]).toBeCloseTo(Math.exp(2), 12);
  });

  test("positive answers add their mean negative log-likelihood", () => {
    const { loss } = inFloat64(
      buildLoss(({ g, input }) => {
        const inputs = {
          logProbs: input([-1, -2, -5]),
          membership: input([
            [1, 1, 0],
            [0, 0, 1],
          ]),
          advantages: input([0, 0]),
          positives: input([1, 0]),
        };
        return { values: { loss: align.policyLoss(g, inputs, { onPolicy: true, positiveWeight: 0.5 }).loss } };
      }),
    );
    expect(loss![0]).toBeCloseTo(0.75, 12);
  });
});

describe("advantages", () => {
  const close = (found: ArrayLike<number>, expected: readonly number[]) => {
    expect(found.length).toBe(expected.length);
    expected.forEach((value, i) => {
      expect(found[i]).toBeCloseTo(value, 10);
    });
  };

  test("groups of one and equal rewards have advantage 0", () => {
    for (const groups of [
      [0, 1, 2],
      [0, 0, 0],
    ]) {
      const same = [0.1, 0.1, 0.1];
      close(align.groupAdvantages(same, groups), [0, 0, 0]);
      close(align.groupAdvantages(same, groups, { scale: "batch" }), [0, 0, 0]);
      close(align.rlooAdvantages(same, groups, { normalise: true }), [0, 0, 0]);
      close(align.scaledAdvantages(same, groups), [0, 0, 0]);
      close(align.leaveOneOutBaseline(same, groups), same);
    }
  });

  test("groups of two: with leave-one-out the deviation is 0 and advantages stay as they are", () => {
    close(align.scaledAdvantages([3, 1], [0, 0]), [2, -2]);
    close(align.scaledAdvantages([3, 1], [0, 0], { leaveOneOut: false, epsilon: 0 }), [Math.SQRT1_2, -Math.SQRT1_2]);
    close(align.groupAdvantages([3, 1], [0, 0], { epsilon: 0 }), [Math.SQRT1_2, -Math.SQRT1_2]);
    close(align.groupAdvantages([3, 1, 5], [7, 7, 3], { scale: "none" }), [1, -1, 0]);
  });

  test("what nothing could score is left out and has advantage 0", () => {
    const rewards = align.weightedRewards(
      [
        [1, null],
        [null, null],
        [0, 4],
      ],
      [1, 0.5],
    );
    expect([...rewards]).toEqual([1, Number.NaN, 2]);
    close(align.decoupledAdvantages([[1], [null], [0]], [1], [0, 0, 0], 0), [Math.SQRT1_2, 0, -Math.SQRT1_2]);
    close(align.rlooAdvantages(rewards, [0, 0, 0]), [-1, 0, 1]);
    close(align.groupAdvantages(rewards, [0, 0, 0], { scale: "none" }), [-0.5, 0, 0.5]);
    close(align.scaledAdvantages(rewards, [0, 0, 0], { normalise: false }), [-1, 0, 1]);
    expect(() => align.weightedRewards([[1]], [1, 2])).toThrow("align: rewards of an answer: expected 2, found 1");
  });

  test("answers that did not end are no baseline of others; alone, nothing is", () => {
    close(align.leaveOneOutBaseline([1, 2, 9], [0, 0, 0], [1, 1, 0]), [2, 1, 3]);
    close(align.leaveOneOutBaseline([1, 2], [0, 0], [0, 1]), [1, 2]);
  });

  test("generalised advantages with lambda 1 are returns less values", () => {
    const values = random(6, -1, 1, 7);
    const { advantages, returns } = align.generalisedAdvantages(values, [0, 0, 0, 0, 0, 2], { gamma: 0.9, lambda: 1 });
    close(
      returns,
      values.map((_, t) => 2 * 0.9 ** (5 - t)),
    );
    close(
      advantages,
      values.map((value, t) => 2 * 0.9 ** (5 - t) - value),
    );
  });

  test("the overlong punishment begins at the buffer", () => {
    const options = { maxLength: 10, buffer: 4, penalty: 2 };
    close(align.punishOverlong([1, 1, 1, 1], [6, 7, 10, 12], options), [1, 0.5, -1, -2]);
    expect(() => align.punishOverlong([1], [1], { maxLength: 4, buffer: 5 })).toThrow("at most 4");
  });
});

test("sorting inside a graph equals sort, ties and entries that do not count included", () => {
  const values = [3, -1, 3, 0, -1, 2];
  const { s } = inFloat64(
    buildLoss((t) => {
      const pairs = {
        ...pairsOf(
          t,
          values,
          values.map(() => 0),
        ),
        rejected: t.g.fill([6], 0),
      };
      const { perPair } = align.preferenceLoss(t.g, pairs, { kind: "aot_unpaired", beta: 1 });
      return { values: { s: perPair } };
    }),
  );
  [...values]
    .sort((a, b) => a - b)
    .forEach((value, i) => {
      expect(s![i]).toBeCloseTo(Math.log1p(Math.exp(-value)), 12);
    });
});

test("merging models: shares, factors, extrapolation; unequal sizes are refused", () => {
  const [a, b] = [Float32Array.of(1, 2), Float32Array.of(3, 6)];
  expect([...align.mergeWeights([a, b])]).toEqual([2, 4]);
  expect([...align.extrapolate(a, b, 1.5)]).toEqual([4, 8]);
  expect([...align.extrapolate(a, b, 1)]).toEqual([3, 6]);
  expect(() => align.mergeWeights([a, Float32Array.of(1)])).toThrow("of equal size");
  expect(align.aggregateReward([1, 2, 6])).toBeCloseTo(3, 12);
});

test("a label of 0 prefers the second answer, with strength 0", () => {
  const g = createGraph("labels");
  const [first, second, labels] = [g.input("a", [3]), g.input("b", [3]), g.input("labels", [3])];
  const pairs = align.pairsOfLabels(g, first, second, labels);
  const { loss } = align.bradleyTerry(g, pairs, { kind: "scaled" });
  g.output("chosen", pairs.chosen);
  g.output("gradient", gradients(g, loss, [first])[0]!);
  const feeds: Record<string, HostTensor> = {
    a: f32Tensor([3], [1, 2, 3]),
    b: f32Tensor([3], [4, 5, 6]),
    labels: f32Tensor([3], [-1, 0, 2]),
  };
  const outputs = interpret(g, feeds);
  expect([...outputs.chosen!.data]).toEqual([1, 5, 6]);
  expect(outputs.gradient!.data[1]! + 0).toBe(0);
});

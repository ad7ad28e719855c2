import { expect, test } from "vitest";
import { createRng } from "../base/index.js";
import { f32Tensor } from "../tensor/index.js";
import { createGraph, type GraphBuilder } from "./builder.js";
import { type AttentionOptions, maskedScore } from "./methods/networks.js";
import { interpret } from "./reference/interpret.js";

const [B, heads, kv, T, D] = [2, 6, 2, 4, 3];
const rng = createRng(5);
const normals = (length: number) => Float64Array.from({ length }, () => rng.normal());
const feeds = { q: normals(B * heads * T * D), k: normals(B * kv * T * D), v: normals(B * kv * T * D) };

/** One query at a time, kv head `h div 3` for query head h, over the keys that `sees` allows. */
function textbook(sees: (b: number, t: number, s: number) => boolean, scale = 1 / Math.sqrt(D)): number[] {
  const out: number[] = [];
  for (let b = 0; b < B; b++) {
    for (let h = 0; h < heads; h++) {
      for (let t = 0; t < T; t++) {
        const query = ((b * heads + h) * T + t) * D;
        const rows = [...Array(T).keys()].filter((s) => sees(b, t, s));
        const at = (s: number) => ((b * kv + Math.floor(h / (heads / kv))) * T + s) * D;
        const dot = (s: number) => [0, 1, 2].reduce((sum, d) => sum + feeds.q[query + d]! * feeds.k[at(s) + d]!, 0);
        const powers = rows.map((s) => Math.exp(dot(s) * scale));
        const total = powers.reduce((a, c) => a + c);
        for (let d = 0; d < D; d++) {
          out.push(rows.reduce((sum, s, i) => sum + (powers[i]! / total) * feeds.v[at(s) + d]!, 0));
        }
      }
    }
  }
  return out;
}

function attend(options: (g: GraphBuilder) => AttentionOptions): number[] {
  const g = createGraph("attention");
  const [q, k, v] = [g.input("q", [B, heads, T, D]), g.input("k", [B, kv, T, D]), g.input("v", [B, kv, T, D])];
  g.output("o", g.attention(q, k, v, options(g)));
  return [...interpret(g, feeds).o!.data];
}

const segments = [0, 0, 1, 1, 0, 1, 1, 1];

function packedScores(): number[] {
  const at = (b: number, t: number) => segments[b * T + t];
  return Array.from({ length: B * T * T }, (_, i) => {
    const [b, t, s] = [Math.floor(i / (T * T)), Math.floor(i / T) % T, i % T];
    return s <= t && at(b, t) === at(b, s) ? 0 : maskedScore;
  });
}

test.each<[string, (g: GraphBuilder) => AttentionOptions, number[]]>([
  ["unmasked", () => ({}), textbook(() => true)],
  ["causal", () => ({ causal: true }), textbook((_, t, s) => s <= t)],
  ["scaled", () => ({ scale: 0.2 }), textbook(() => true, 0.2)],
  [
    "packed",
    (g) => ({ mask: g.constant(f32Tensor([B, T, T], packedScores())) }),
    textbook((b, t, s) => s <= t && segments[b * T + t] === segments[b * T + s]),
  ],
])("%s attention with grouped heads equals the textbook", (_, options, expected) => {
  attend(options).forEach((value, i) => {
    expect(value).toBeCloseTo(expected[i]!, 12);
  });
});

test("rotary embedding turns pairs by their angle, in both pairings", () => {
  const angle = [0.3, 1.1]; // of the two pairs at the only position
  const x = [1, 2, 3, 4];
  const turn = (a: number, b: number, i: number) => [
    a * Math.cos(angle[i]!) - b * Math.sin(angle[i]!),
    a * Math.sin(angle[i]!) + b * Math.cos(angle[i]!),
  ];
  const [first, second] = [turn(1, 3, 0), turn(2, 4, 1)]; // pairs (0, 2) and (1, 3)
  const half = [first[0], second[0], first[1], second[1]];
  const adjacent = [...turn(1, 2, 0), ...turn(3, 4, 1)];
  for (const [pairing, expected] of [["half", half] as const, ["adjacent", adjacent] as const]) {
    const g = createGraph("rotary");
    const [cos, sin] = [g.input("cos", [1, 1, 2]), g.input("sin", [1, 1, 2])];
    g.output("y", g.rotary(g.input("x", [1, 1, 1, 4]), cos, sin, { pairing }));
    const found = interpret(g, { x, cos: angle.map(Math.cos), sin: angle.map(Math.sin) }).y!.data;
    found.forEach((value, i) => {
      expect(value).toBeCloseTo(expected[i]!, 14);
    });
  }
});

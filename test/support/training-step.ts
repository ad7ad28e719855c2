import { type CrossEntropyOptions, createGraph, type GraphBuilder, gradients } from "../../src/graph/index.js";

export interface DecoderSizes {
  B: number;
  T: number;
  H: number;
  heads: number;
  kv: number;
  F: number;
  V: number;
}

/** A decoder of one layer with grouped heads and tied embeddings, its loss and all its gradients. */
export function trainingStep({ B, T, H, heads, kv, F, V }: DecoderSizes, losses: CrossEntropyOptions): GraphBuilder {
  const D = H / heads;
  const g = createGraph("training step");
  const ids = g.input("ids", [B, T], "i64");
  const [targets, weights] = [g.input("targets", [B * T], "i64"), g.input("weights", [B * T])];
  const [cos, sin] = [g.input("cos", [1, T, D / 2]), g.input("sin", [1, T, D / 2])];
  const embed = g.input("embed", [V, H]);
  const [norm1, norm2, norm3] = [g.input("norm1", [H]), g.input("norm2", [H]), g.input("norm3", [H])];
  const [wq, wo] = [g.input("q", [heads * D, H]), g.input("o", [H, heads * D])];
  const [wk, wv] = [g.input("k", [kv * D, H]), g.input("v", [kv * D, H])];
  const [gate, up, down] = [g.input("gate", [F, H]), g.input("up", [F, H]), g.input("down", [H, F])];

  const x = g.embedding(embed, g.reshape(ids, [B * T]));
  const a = g.rmsNorm(x, norm1, 1e-5);
  const split = (y: typeof x, count: number) => g.transpose(g.reshape(y, [B, T, count, D]), [0, 2, 1, 3]);
  const q = g.rotary(split(g.linear(a, wq), heads), cos, sin);
  const k = g.rotary(split(g.linear(a, wk), kv), cos, sin);
  const attended = g.attention(q, k, split(g.linear(a, wv), kv), { causal: true });
  const y = g.add(x, g.linear(g.reshape(g.transpose(attended, [0, 2, 1, 3]), [B * T, heads * D]), wo));
  const b = g.rmsNorm(y, norm2, 1e-5);
  const z = g.add(y, g.linear(g.mul(g.silu(g.linear(b, gate)), g.linear(b, up)), down));
  const loss = g.crossEntropy(g.rmsNorm(z, norm3, 1e-5), embed, targets, weights, losses);
  g.output("loss", loss);
  const parameters = { embed, norm1, q: wq, k: wk, v: wv, o: wo, norm2, gate, up, down, norm3 };
  gradients(g, loss, Object.values(parameters)).forEach((gradient, i) => {
    g.output(`d ${Object.keys(parameters)[i]}`, gradient);
  });
  return g;
}

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../src/base/testing.js";
import { fileTypeNumbers, openGgufFile } from "../src/formats/index.js";
import { createLlamaCpp, createLlamaCppTools } from "../src/llamacpp/index.js";
import { openModel, writeGguf } from "../src/models/index.js";

const tools = createLlamaCppTools({ threads: 1 });
const llama = createLlamaCpp({ threads: 1 });
const folder = temporaryDirectory();
const gguf = join(folder, "stories.f32.gguf");
const sequences = [
  [1, 403, 407, 261, 378, 432, 410, 429, 327, 263, 286, 261, 376, 298],
  [1, 338, 311, 325, 400, 422, 280, 267, 390, 291, 459, 284, 411],
];
const q4 = 2;
const q8 = 8;
const f32 = 0;

beforeAll(async () => {
  const model = await openModel(repositoryPath("models/stories260K"));
  await writeGguf(model, gguf, { type: "f32" });
  await model.close();
});
afterAll(async () => {
  await tools.dispose();
  await llama.dispose();
});

test("the importance matrix of the first attention is the mean square of the normed embeddings", async () => {
  const { tokens, meanSquares } = await tools.importance(gguf, sequences);
  const file = await openGgufFile(gguf);
  const embeddings = await file.read("token_embd.weight");
  const norm = await file.read("blk.0.attn_norm.weight");
  await file.close();
  const width = norm.length;
  const expected = new Float64Array(width);
  const ids = sequences.flat();
  for (const id of ids) {
    const x = embeddings.subarray(id * width, (id + 1) * width);
    const square = x.reduce((sum, value) => sum + value * value, 0) / width + 1e-5;
    for (let i = 0; i < width; i++) expected[i]! += (x[i]! * norm[i]!) ** 2 / square / ids.length;
  }
  expect(tokens).toBe(ids.length);
  expect(Object.keys(meanSquares)).toHaveLength(5 * 7);
  for (const matrix of ["attn_q", "attn_k", "attn_v"]) {
    const found = meanSquares[`blk.0.${matrix}.weight`]!;
    for (let i = 0; i < width; i++) expect(found[i]).toBeCloseTo(expected[i]!, 4);
  }
});

describe("a quantised file", () => {
  const path = join(folder, "stories.q8.gguf");
  beforeAll(() => tools.quantise({ source: gguf, target: path, fileType: fileTypeNumbers.Q8_0 }));

  test("is compared as the logits of both say", async () => {
    const [comparisons] = await tools.compare(gguf, [path], sequences);
    for (const [i, ids] of sequences.entries()) {
      const [p] = await llama.logits(gguf, [ids]);
      const [q] = await llama.logits(path, [ids]);
      const { kl, nll, sameTop } = compareRows(ids, p!, q!);
      expect(comparisons![i]!.tokens).toBe(ids.length - 1);
      expect(comparisons![i]!.kl).toBeCloseTo(kl, 4);
      expect(comparisons![i]!.nll).toBeCloseTo(nll, 3);
      expect(comparisons![i]!.sameTop).toBe(sameTop);
      expect(kl).toBeGreaterThan(1e-5);
    }
  });

  test("does not differ from itself", async () => {
    const [comparisons] = await tools.compare(path, [path], sequences);
    for (const { kl, sameTop, tokens } of comparisons!) expect([kl, sameTop]).toEqual([0, tokens]);
  });
});

test("a matrix tried alone costs what a file costs in which it alone is quantised", async () => {
  const name = "blk.1.attn_output.weight";
  const path = join(folder, "one.gguf");
  const overrides: [string, number][] = [
    ["^blk\\.1\\.attn_output\\.weight$", q4],
    [".", f32],
  ];
  await tools.quantise({ source: gguf, target: path, fileType: fileTypeNumbers.Q4_0, overrides });
  const [comparisons] = await tools.compare(gguf, [path], sequences);
  const [tried, again] = await tools.sensitivity({
    gguf,
    sequences,
    tensors: [
      { name, types: [q4] },
      { name, types: [f32, q4] },
    ],
  });
  for (const [i, { kl, tokens }] of comparisons!.entries()) {
    expect(kl / tokens).toBeGreaterThan(1e-4);
    // The file's products round the activations too.
    expect(Math.abs(tried![0]![i]! / (kl / tokens) - 1)).toBeLessThan(0.1);
  }
  // The matrix was put back, and left as it was.
  expect(again![0]).toEqual([0, 0]);
  expect(again![1]).toEqual(tried![0]);
});

test("rows that a type's blocks do not divide are refused", async () => {
  const tensors = [{ name: "blk.1.ffn_down.weight", types: [q8] }];
  await expect(tools.sensitivity({ gguf, sequences, tensors })).rejects.toThrow(
    "rows of blk.1.ffn_down.weight are no whole blocks of type 8",
  );
});

test("what the quantiser refuses is said in its words, and the file is named", async () => {
  const target = join(folder, "refused.gguf");
  const importance = { "blk.0.attn_q.weight": new Float32Array(3) };
  const refused = tools.quantise({ source: gguf, target, fileType: fileTypeNumbers.Q4_0, importance });
  await expect(refused).rejects.toThrow(/stories\.f32\.gguf: .*imatrix size 3 is different from tensor size 64/);
  const missing = tools.quantise({ source: join(folder, "nowhere.gguf"), target, fileType: fileTypeNumbers.Q8_0 });
  await expect(missing).rejects.toThrow(/nowhere\.gguf.*failed/s);
});

test("rows that no block divides are counted, not listed", async () => {
  const target = join(folder, "q4km.gguf");
  const notices = await tools.quantise({ source: gguf, target, fileType: fileTypeNumbers.Q4_K_M });
  expect(notices.join("\n")).toMatch(/\d+ tensors have rows that the mixture's blocks do not divide, and became Q5_0/);
  expect(notices.length).toBeLessThan(5);
  expect(readFileSync(target).subarray(0, 4).toString()).toBe("GGUF");
});

/** KL, negative log-likelihood and equal maxima over the positions that predict a token. */
function compareRows(ids: readonly number[], p: Float32Array, q: Float32Array) {
  const width = p.length / ids.length;
  const sums = { kl: 0, nll: 0, sameTop: 0 };
  for (let position = 0; position + 1 < ids.length; position++) {
    const logP = logSoftmax(p.subarray(position * width, (position + 1) * width));
    const logQ = logSoftmax(q.subarray(position * width, (position + 1) * width));
    sums.kl += logP.reduce((sum, own, i) => sum + Math.exp(own) * (own - logQ[i]!), 0);
    sums.nll -= logQ[ids[position + 1]!]!;
    if (logP.indexOf(Math.max(...logP)) === logQ.indexOf(Math.max(...logQ))) sums.sameTop++;
  }
  return sums;
}

function logSoftmax(logits: Float32Array): number[] {
  const highest = Math.max(...logits);
  const sum = Math.log(logits.reduce((total, own) => total + Math.exp(own - highest), 0)) + highest;
  return Array.from(logits, (own) => own - sum);
}

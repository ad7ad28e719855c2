import { afterAll, expect, test } from "vitest";
import { startTestServer } from "../testing.js";

const server = await startTestServer();
afterAll(() => server.stop());
const ask = (more: object = {}) => server.post("/v1/embeddings", { model: "fake", input: "Hi", ...more });

// The fake's vector is (sum of ids, number of ids, 1, 0), normalised; the text comes after the start token, 258.
const vector = (sum: number, count: number) => [sum, count, 1, 0].map((value) => value / Math.hypot(sum, count, 1));

test("one text, several, token ids", async () => {
  const { json } = await ask({ input: ["Hi", "A"] });
  expect(json).toMatchObject({ object: "list", model: "fake", usage: { prompt_tokens: 5, total_tokens: 5 } });
  expect(json.data.map(({ index }: { index: number }) => index)).toEqual([0, 1]);
  for (const [i, expected] of [vector(258 + 72 + 105, 3), vector(258 + 65, 2)].entries()) {
    json.data[i].embedding.forEach((value: number, k: number) => void expect(value).toBeCloseTo(expected[k]!, 6));
  }
  const ids = await ask({ input: [3, 4] });
  expect(ids.json.data[0].embedding[0]).toBeCloseTo(vector(7, 2)[0]!, 6);
  expect((await ask({ input: [[3], [4]] })).json.data).toHaveLength(2);
});

test("base64 holds the same floats", async () => {
  const [plain, packed] = [await ask(), await ask({ encoding_format: "base64" })];
  const bytes = Buffer.from(packed.json.data[0].embedding, "base64");
  const floats = Array.from({ length: 4 }, (_, i) => bytes.readFloatLE(i * 4));
  expect(floats).toEqual(plain.json.data[0].embedding);
});

test.each([
  [{ dimensions: 2 }, "dimensions"],
  [{ input: "" }, "input"],
  [{ input: [] }, "input"],
  [{ input: [9999] }, "input"],
  [{ encoding_format: "hex" }, "encoding_format"],
  [{ input: "x".repeat(3000) }, "input"],
])("%j is refused by name", async (fields, param) => {
  const { status, json } = await ask(fields);
  expect([status, json.error.param]).toEqual([400, param]);
});

test("the model's own number of dimensions is taken", async () => {
  expect((await ask({ dimensions: 4, user: "u" })).status).toBe(200);
});

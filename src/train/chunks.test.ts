import { expect, test } from "vitest";
import { createRuntime } from "../runtime/index.js";
import { createFlatProgram } from "./chunks.js";
import { createNorm } from "./clip.js";

test("a flat program covers a range in chunks, the last one short, and nothing outside it", async () => {
  const runtime = await createRuntime();
  const program = createFlatProgram(
    runtime,
    "axpy",
    { arrays: ["x", "y"], scalars: ["a"], chunk: 4 },
    (g, { x, y }, { a }) => ({ y: g.add(g.mul(x!, a!), y!) }),
  );
  const x = Float32Array.from({ length: 13 }, (_, i) => i);
  const y = new Float32Array(13).fill(100);
  await program.run({ arrays: { x, y }, scalars: { a: 2 } }, 1, 12);
  expect([...y]).toEqual([100, 102, 104, 106, 108, 110, 112, 114, 116, 118, 120, 122, 100]);
  await runtime.dispose();
});

test("the norm of an array longer than a chunk", async () => {
  const runtime = await createRuntime();
  const array = Float32Array.from({ length: (1 << 19) + 777 }, (_, i) => Math.sin(i));
  const expected = Math.sqrt(array.reduce((sum, value) => sum + value * value, 0));
  expect((await createNorm(runtime)(array)) / expected).toBeCloseTo(1, 5);
  await runtime.dispose();
});

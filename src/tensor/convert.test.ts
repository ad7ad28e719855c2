import { expect, test } from "vitest";
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16, maxAbsDifference, toF32, transposeMatrix } from "./convert.js";
import { f32Tensor, i64Tensor, sizeOf } from "./types.js";

const half = (x: number) => f32ToF16(Float32Array.of(x))[0]!;
const brain = (x: number) => f32ToBf16(Float32Array.of(x))[0]!;

test("halves of known values", () => {
  const known: [number, number][] = [
    [0, 0x0000],
    [-0, 0x8000],
    [1, 0x3c00],
    [-2, 0xc000],
    [65504, 0x7bff],
    [65519, 0x7bff],
    [65520, 0x7c00], // half way to the next: even is infinity
    [Number.NEGATIVE_INFINITY, 0xfc00],
    [2 ** -14, 0x0400], // smallest normal
    [2 ** -24, 0x0001], // smallest subnormal
    [2 ** -25, 0x0000], // a tie, to even
    [1.5 * 2 ** -24, 0x0002], // a tie, to even
    [1 + 2 ** -11, 0x3c00], // a tie, to even
    [1 + 3 * 2 ** -11, 0x3c02], // a tie, to even
  ];
  for (const [value, bits] of known) expect(half(value), String(value)).toBe(bits);
  expect(f16ToF32(Uint16Array.of(half(Number.NaN)))[0]).toBeNaN();
});

test("every half survives the way to f32 and back", () => {
  const all = Uint16Array.from({ length: 65536 }, (_, i) => i).filter((bits) => (bits & 0x7fff) <= 0x7c00);
  expect(f32ToF16(f16ToF32(all))).toEqual(all);
});

test("bfloat16 rounds to nearest even and keeps NaN", () => {
  expect(brain(1)).toBe(0x3f80);
  expect(brain(1 + 2 ** -8)).toBe(0x3f80); // a tie, to even
  expect(brain(1 + 3 * 2 ** -8)).toBe(0x3f82); // a tie, to even
  expect(brain(1 + 2 ** -8 + 2 ** -20)).toBe(0x3f81);
  expect(brain(3.4e38)).toBe(0x7f80); // beyond the largest bfloat16: infinity
  expect(bf16ToF32(Uint16Array.of(brain(Number.NaN)))[0]).toBeNaN();
  const all = Uint16Array.from({ length: 65536 }, (_, i) => i).filter((bits) => (bits & 0x7fff) <= 0x7f80);
  expect(f32ToBf16(bf16ToF32(all))).toEqual(all);
});

test("toF32 widens floats and refuses integers", () => {
  const tensor = { dtype: "bf16", shape: [2], data: Uint16Array.of(0x3f80, 0xc000) } as const;
  expect(toF32(tensor).data).toEqual(Float32Array.of(1, -2));
  expect(() => toF32(i64Tensor([1], [3]))).toThrow(/expected a float tensor, found i64\[1\]/);
});

test("comparison sees NaN and takes equal infinities as equal", () => {
  expect(maxAbsDifference([1, 2, 4], [1, 2.5, 3])).toBe(1);
  expect(maxAbsDifference([1, Number.NaN], [1, 2])).toBeNaN();
  expect(maxAbsDifference([Number.POSITIVE_INFINITY], [Number.POSITIVE_INFINITY])).toBe(0);
  expect(() => maxAbsDifference([1], [1, 2])).toThrow(/expected 1 elements, found 2/);
});

test("a tensor's data fits its shape", () => {
  expect(sizeOf([])).toBe(1);
  expect(() => f32Tensor([2, 3], [1, 2])).toThrow(/expected 6 elements for f32\[2, 3\], found 2/);
});

test("transposes in tiles", () => {
  const rows = 37;
  const columns = 70;
  const source = Float32Array.from({ length: rows * columns }, (_, i) => i);
  const target = transposeMatrix(source, rows, columns);
  expect(target[5 * rows + 36]).toBe(36 * columns + 5);
  expect(transposeMatrix(target, columns, rows)).toEqual(source);
});

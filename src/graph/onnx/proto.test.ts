import { expect, test } from "vitest";
import { createProtoWriter } from "./proto.js";

test("fields as the protocol buffers documentation encodes them", () => {
  const proto = createProtoWriter();
  proto.varint(1, 150); // 08 96 01, the documentation's first example
  proto.text(2, "testing"); // 12 07 74 65 73 74 69 6e 67
  proto.message(3, (inner) => inner.varint(1, 150)); // 1a 03 08 96 01
  proto.packedVarints(6, [3, 270, 86942]); // 32 06 03 8e 02 9e a7 05
  const expected = "089601 120774657374696e67 1a03089601 3206038e029ea705".replaceAll(" ", "");
  expect(Buffer.from(proto.finish()).toString("hex")).toBe(expected);
});

test("negative and large numbers, floats, two-byte tags", () => {
  const proto = createProtoWriter();
  proto.varint(1, -1); // ten bytes of two's complement
  proto.varint(2, 2 ** 40);
  proto.float(2, 1); // 15 00 00 80 3f
  proto.varint(20, 7); // tag 20 * 8 = 160 = a0 01
  expect(Buffer.from(proto.finish()).toString("hex")).toBe(
    "08ffffffffffffffffff01" + "10808080808020" + "150000803f" + "a00107",
  );
});

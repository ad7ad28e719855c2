import { expect, test } from "vitest";
import { nameOf } from "./sidecars.js";

test.each([
  ["/models/my-model", "my-model"],
  ["/cache/models--owner--some--name/snapshots/c0ffee", "owner/some--name"],
  ["C:\\cache\\models--owner--name\\snapshots\\c0ffee", "owner/name"],
])("the model in %s is %s", (directory, name) => {
  expect(nameOf(directory)).toBe(name);
});

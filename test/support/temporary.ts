import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { temporaryRoot } from "../../src/base/testing.js";

/** One directory for all that the tests of a run write, gone when it ends. */
export default function setup(): () => void {
  const root = mkdtempSync(join(tmpdir(), "espalier-tests-"));
  process.env[temporaryRoot] = root;
  return () => rmSync(root, { recursive: true, force: true });
}

import { existsSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const repository = fileURLToPath(new URL("../../", import.meta.url));

/** A file of the optional folder of large test data (ESPALIER_SHARED, else ../shared), or undefined where it is missing. */
export function sharedPath(relative: string): string | undefined {
  const path = resolve(process.env.ESPALIER_SHARED ?? join(repository, "../shared"), relative);
  return existsSync(path) ? path : undefined;
}

/** A file of this repository. */
export function repositoryPath(relative: string): string {
  return join(repository, relative);
}

/** Variable that names the directory in which temporary ones are made. */
export const temporaryRoot = "ESPALIER_TEST_ROOT";

/** A new directory. A run of the tests removes those of all its tests when it ends. */
export function temporaryDirectory(): string {
  return mkdtempSync(join(process.env[temporaryRoot] ?? tmpdir(), "espalier-test-"));
}

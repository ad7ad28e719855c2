// Compiles src/ to dist/ only when a source is newer than the last build, so that `npm start` and `npm test` stay quick.
import { spawnSync } from "node:child_process";
import { readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const stamp = "dist/.built";
const newest = Math.max(
  ...["tsconfig.json", "tsconfig.build.json", "package.json"].map((file) => statSync(file).mtimeMs),
  ...readdirSync("src", { recursive: true }).map((file) => statSync(`src/${file}`).mtimeMs),
);
const built = statSync(stamp, { throwIfNoEntry: false })?.mtimeMs ?? 0;

if (newest > built) {
  rmSync("dist", { recursive: true, force: true });
  const tsc = createRequire(import.meta.url).resolve("typescript/bin/tsc");
  const { status } = spawnSync(process.execPath, [tsc, "-p", "tsconfig.build.json"], { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
  writeFileSync(stamp, "");
}

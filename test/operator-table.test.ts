import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { repositoryPath } from "../src/base/testing.js";
import { ops } from "../src/graph/ops/index.js";
import type { OpKind } from "../src/graph/ops/params.js";

function operatorTable(): string {
  const kinds = Object.keys(ops).sort() as OpKind[];
  const reasons = kinds.flatMap((kind) => {
    const { grad } = ops[kind];
    return typeof grad === "function" ? [] : [`| \`${kind}\` | ${grad.none} |`];
  });
  const differentiable = kinds.filter((kind) => typeof ops[kind].grad === "function");
  return [
    "With gradient:",
    `${differentiable.map((kind) => `\`${kind}\``).join(", ")}.`,
    "",
    "| without | because |",
    "|---|---|",
    ...reasons,
  ].join("\n");
}

test("docs/graph.md lists the operators and why some have no gradient", () => {
  const page = readFileSync(repositoryPath("docs/graph.md"), "utf8");
  const between = /<!-- operators -->\n([\s\S]*?)\n?<!-- \/operators -->/.exec(page)?.[1];
  expect(between, "paste the expected text between the markers").toBe(operatorTable());
});

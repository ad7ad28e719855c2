import { expect, test } from "vitest";
import { parentInCard, renderModelCard } from "./card.js";
import { modelParameters } from "./config.js";
import { gqa, linear, swiglu, testConfig } from "./testing.js";

// Embedding 512 x 32, two blocks of 3104 (attention) + 3872 (feed-forward), one of 1056 + 800, the last norm: 32,224.
test("a card says what was changed, from what, measured how", () => {
  const block = { attention: gqa(2), ffn: swiglu(40) };
  const config = testConfig({ blocks: [block, block, { attention: linear, ffn: swiglu(8) }] });
  const card = renderModelCard({
    name: "child",
    parent: { name: "owner/parent", parameters: 2 * modelParameters(config) },
    config,
    licence: "mit",
    legalFiles: ["LICENSE"],
    changes: ["Feed-forward widths searched.", "Distilled on 1,000 tokens."],
    measured: {
      columns: ["model", "KL"],
      rows: [["child", "0.12 | 0.02"]],
      notes: ["95 % intervals by sequence."],
    },
    commands: ["espalier run recipe.json"],
    version: "0.1.0",
  });
  expect(card).toBe(`---
license: mit
base_model: "owner/parent"
pipeline_tag: text-generation
tags:
  - espalier
  - pruned
---

# child

A model of 32.2K parameters (32,224), made from **owner/parent** (64.4K; 50.0 % of them kept) by [Espalier](https://www.npmjs.com/package/espalier) 0.1.0.

## What was changed

- Feed-forward widths searched.
- Distilled on 1,000 tokens.

## Blocks

| layer | attention | feed-forward |
|---|---|---|
| 0-1 | 2 kv heads | SwiGLU 40 |
| 2 | linear | SwiGLU 8 |

## Measured

| model | KL |
|---|---|
| child | 0.12 \\| 0.02 |

- 95 % intervals by sequence.

## Commands

\`\`\`sh
espalier run recipe.json
\`\`\`

## Licence

\`mit\`, as owner/parent. Carried over unchanged: \`LICENSE\`.

## Limits

It knows nothing that owner/parent did not know, repeats its biases, and may have lost skills that were not measured above.
`);
});

test("a parent without a stated licence is said to have none", () => {
  const config = testConfig();
  const facts = { name: "child", parent: { name: "parent", parameters: 1e6 }, config, changes: ["x"] };
  expect(renderModelCard(facts)).toContain("parent states no licence: ask its makers before publishing.");
});

test.each([
  ['---\nbase_model: "owner/parent"\n---\n# child', "owner/parent"],
  ["---\nlicense: mit\nbase_model:\n- owner/parent\n- owner/other\n---\n", "owner/parent"],
  ["---\nbase_model: owner/parent\ntags:\n- x\n---\n", "owner/parent"],
  ["# a model of its own", undefined],
])("the parent in a card: %j", (card, parent) => {
  expect(parentInCard(card)).toBe(parent);
});

test("a parent that is no repository is read from the sentence", () => {
  const facts = { name: "child", parent: { name: "my-model", parameters: 1e6 }, config: testConfig(), changes: ["x"] };
  expect(parentInCard(renderModelCard(facts))).toBe("my-model");
});

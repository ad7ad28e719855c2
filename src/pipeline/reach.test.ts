import { expect, test } from "vitest";
import { repositoryPath } from "../base/testing.js";
import { type BlockConfig, openModel } from "../models/index.js";
import { buildSpace } from "../puzzle/index.js";
import { checkReach } from "./reach.js";
import { checkRecipe } from "./recipe.js";

const parent = await openModel(repositoryPath("models/stories260K"));
const recipe = checkRecipe({ kind: "reshape", parent: "p", out: "o", budget: { params: "50%" } }, "r");
const layers = parent.config.blocks.length;

/** Two costs that pull apart: one counts what attention takes, the other what is left of feed-forwards is spared. */
const costs = {
  params: { fixed: 0, block: ({ attention }: BlockConfig) => (attention.kind === "none" ? 0 : 2) },
  memory: { fixed: 1, block: ({ attention }: BlockConfig) => (attention.kind === "none" ? 3 : 1) },
};

function check(bounds: Record<string, number>, dropLayers = false) {
  const children = [{ name: "child", budgets: [], text: "", bounds }];
  const parentCosts = { params: 2 * layers, memory: 1 + layers };
  const space = buildSpace(parent.config);
  return checkReach({ recipe: { ...recipe, dropLayers }, parent, space, costs, parentCosts, children });
}

test("bounds that hold alone and not together are refused, with the nearest that can", async () => {
  // With k of 5 layers attending, params are 2k and memory 1 + k + 3(5 - k) = 16 - 2k; layer 0 always attends.
  await expect(check({ params: 4, memory: 16 - 4 })).resolves.toBeUndefined();
  await expect(check({ params: 4, memory: 16 - 5 })).rejects.toThrow(
    /--budget: expected a budget that some choice of blocks meets, found params 4 .* and memory 11 B .*the nearest that can be met/,
  );
});

test("a bound that nothing meets, and one that only a child without whole layers meets", async () => {
  await expect(check({ params: 1 })).rejects.toThrow(/found params 1 .*the nearest that can be met: params 2 /);
  const nothing = {
    fixed: 0,
    block: ({ attention, ffn }: BlockConfig) => Number(attention.kind !== "none" || ffn.kind !== "none"),
  };
  const children = [{ name: "child", budgets: [], text: "", bounds: { params: 3 } }];
  const asked = {
    recipe,
    parent,
    space: buildSpace(parent.config),
    costs: { params: nothing },
    parentCosts: { params: layers },
    children,
  };
  await expect(checkReach(asked)).rejects.toThrow(
    /without leaving whole layers out, found params 3 .*--drop-layers, or ask .*: params 5 /,
  );
  await expect(checkReach({ ...asked, recipe: { ...recipe, dropLayers: true } })).resolves.toBeUndefined();
});

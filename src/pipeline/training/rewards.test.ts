import { expect, test } from "vitest";
import { rewardFiles } from "./rewards.js";

test("modules among the rewards are files that a stage depends on", () => {
  expect(rewardFiles({ reward: ["maths*2", "module:brevity.js", "module:a/b.mjs*0.5", "regex:module"] })).toEqual([
    "brevity.js",
    "a/b.mjs",
  ]);
  expect(rewardFiles({})).toEqual([]);
});

import { expect, test } from "vitest";
import { judgeBothWays, reasoningMeasures, tasksOf } from "./reasoning-measures.js";

const questions = [
  { question: "1 + 2?", working: "1 + 2 = 3", answer: "3" },
  { question: "2 + 2?", working: "2 + 2 = 4", answer: "4" },
];
const tasks = tasksOf(questions);

test("the switch is obeyed, and answers are right, each way for itself", async () => {
  const before = await judgeBothWays(tasks, ["3", "<think>\n4", "3", "<think>\n2\n</think>\n\n4"]);
  const after = await judgeBothWays(tasks, [
    "<think>\n1 + 2 = 3\n</think>\n\n3",
    // The number behind the thoughts counts, not the right one within.
    "<think>\n2 + 2 = 4\n</think>\n\n5",
    "3",
    "5",
  ]);
  expect(before.obeys).toEqual([false, true, true, false]);
  expect(before.complete).toEqual([false, false, true, false]);
  expect(before.right).toEqual([true, true, true, true]);
  expect(after.obeys).toEqual([true, true, true, true]);
  expect(after.complete).toEqual([true, true, true, true]);
  expect(after.right).toEqual([true, false, true, false]);
  const shares = reasoningMeasures(before, after).map((measure) => [
    measure.name,
    measure.before!.mean,
    measure.after.mean,
  ]);
  expect(shares).toEqual([
    ["obeys the switch, thinking on", 0.5, 1],
    ["obeys the switch, thinking off", 0.5, 1],
    ["thoughts end, and an answer follows", 0, 1],
    ["right answers, thinking on", 1, 0.5],
    ["right answers, thinking off", 1, 0.5],
  ]);
});

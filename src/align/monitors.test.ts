import { expect, test } from "vitest";
import {
  createMonitors,
  type JudgedAnswer,
  type MonitorRecord,
  monitorNotices,
  monitorParts,
  stopReason,
} from "./index.js";

const answer = (ids: number[], reward: number | null, heldOut?: number): JudgedAnswer => ({
  ids,
  reward,
  ...(heldOut !== undefined && { heldOut }),
});
const values = (records: MonitorRecord[]) => monitorParts(records);

test("numbers of a step are those of their definitions", () => {
  const monitors = createMonitors({ window: 1, runLength: 2, highestReward: 1 });
  const groups = [
    [answer([1, 2, 1, 2, 1], 1, 4), answer([1, 2, 3], 0, 2)], // runs 12 21 12 21: half of them known; 12 23: none
    [answer([5], 1, 4), answer([6], 1, 4)], // all alike; no runs
    [answer([7, 7], null), answer([8, 9], 0, 2)], // one scored answer has nothing to differ from
  ];
  const seen = values(monitors.observe({ step: 1, groups, kl: 0.1, entropy: 2 }));
  expect(seen).toEqual({
    length: 14 / 6,
    "length-drift": 1,
    // Rewards 1 0 1 1 0, lengths 5 3 1 1 2, means 3/5 and 12/5: covariance 7/5 - 36/25 = -1/25, variances 6/25 and 56/25.
    "length-reward": expect.closeTo(-1 / 25 / Math.sqrt((6 / 25) * (56 / 25)), 12),
    repetition: 0.5 / 6,
    kl: 0.1,
    entropy: 2,
    "zero-variance": 0.5,
    saturation: 3 / 5,
    unscorable: expect.closeTo(1 / 6, 12),
    "held-out": expect.closeTo(1, 12),
    "held-out-drift": 0,
  });
});

test("length and the held-out judge are compared with the first steps", () => {
  const monitors = createMonitors({ window: 1 });
  const group = (tokens: number, rewards: number[], judged: number[]) => [
    rewards.map((reward, i) => answer(new Array(tokens).fill(0), reward, judged[i]!)),
  ];
  monitors.observe({ step: 1, groups: group(4, [0, 2], [10, 30]) }); // deviations 1 and 10
  const later = values(monitors.observe({ step: 2, groups: group(10, [2, 4], [25, 5]) }));
  expect(later["length-drift"]).toBe(2.5);
  expect(later["held-out"]).toBeCloseTo(-1, 12);
  expect(later["held-out-drift"]).toBeCloseTo(-0.5 - 2, 12); // the judge fell by 5, the reward rose by 2
});

test("numbers outside their limits are reasons to stop, in words", () => {
  const monitors = createMonitors({ limits: { kl: { max: 0.5 }, entropy: { min: 0.1, max: 5 }, length: { max: 9 } } });
  const step = { step: 7, groups: [[answer([1, 2], 0)]] };
  expect(stopReason(monitors.observe({ ...step, kl: 0.5, entropy: 0.1 }))).toBeUndefined();
  const records = monitors.observe({ ...step, kl: 0.75, entropy: Number.NaN });
  expect(stopReason(records)).toBe(
    "step 7: kl (KL from the reference, nats a token) is 0.75, wanted at most 0.5; " +
      "step 7: entropy (entropy of the policy, nats a token) is NaN, wanted at least 0.1 and at most 5",
  );
  expect(monitorNotices(records).map((notice) => "level" in notice && notice.level)).toEqual(["warning", "warning"]);
});

test("a step without answers has no numbers of them", () => {
  expect(createMonitors().observe({ step: 1, groups: [] })).toEqual([]);
});

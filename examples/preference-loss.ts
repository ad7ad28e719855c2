/** RPO beside DPO: what a reward model's gap changes in the gradient of a pair. */
import { preferenceLoss, rewardAwareLoss } from "espalier/align";
import { createGraph, gradients, interpret } from "espalier/graph";

const g = createGraph("preferences");
const pairs = {
  chosen: g.input("chosen", [2]),
  rejected: g.input("rejected", [2]),
  refChosen: g.input("refChosen", [2]),
  refRejected: g.input("refRejected", [2]),
};
const dpo = preferenceLoss(g, pairs, { kind: "sigmoid", beta: 0.1 });
const rpo = rewardAwareLoss(g, pairs, g.input("gap", [2]), { distance: "bwd_kl", beta: 0.1, eta: 1 });
g.output("dpo", gradients(g, dpo.loss, [pairs.chosen])[0]!);
g.output("rpo", gradients(g, rpo.loss, [pairs.chosen])[0]!);

// Both pairs have an implicit gap of 0.1 * (3 - -2) = 0.5; the reward model finds the second answer hardly worse.
const { dpo: d, rpo: r } = interpret(g, {
  chosen: [-10, -10],
  rejected: [-22, -22],
  refChosen: [-13, -13],
  refRejected: [-20, -20],
  gap: [2, 0.1],
});
for (const pair of [0, 1]) {
  console.log(`pair ${pair}: DPO ${d!.data[pair]!.toFixed(5)}, RPO ${r!.data[pair]!.toFixed(5)}`);
}

/** Learning rate as a factor of its peak, at step 0 to steps - 1. */
export type Schedule = (step: number, steps: number) => number;

export const constant = (): Schedule => () => 1;

/** From 1 at the first step towards `floor` after the last. */
export const linear =
  ({ floor = 0 } = {}): Schedule =>
  (step, steps) =>
    1 - (1 - floor) * (step / steps);

/** Half a cosine from 1 to `floor` (arXiv:1608.03983 eq. 5, one period). */
export const cosine =
  ({ floor = 0 } = {}): Schedule =>
  (step, steps) =>
    floor + (1 - floor) * 0.5 * (1 + Math.cos((Math.PI * step) / steps));

/** A linear rise over the first `warmUp` steps, the first step already above zero; then `rest` over those that remain. */
export const withWarmUp =
  (warmUp: number, rest: Schedule): Schedule =>
  (step, steps) =>
    step < warmUp ? (step + 1) / (warmUp + 1) : rest(step - warmUp, Math.max(1, steps - warmUp));

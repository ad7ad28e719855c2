export interface Measurement {
  /** Shortest of the runs, in milliseconds: the time that nothing else disturbed. */
  bestMs: number;
  medianMs: number;
  runs: number;
}

/** Times `work` after a warm-up. Calls are made one after the other. */
export async function measure(
  work: () => Promise<unknown>,
  { warmUp = 1, runs = 5 }: { warmUp?: number; runs?: number } = {},
): Promise<Measurement> {
  for (let i = 0; i < warmUp; i++) await work();
  const times: number[] = [];
  for (let i = 0; i < runs; i++) times.push(await timeMs(work));
  times.sort((a, b) => a - b);
  return { bestMs: times[0] ?? Number.NaN, medianMs: times[runs >> 1] ?? Number.NaN, runs };
}

export async function timeMs(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

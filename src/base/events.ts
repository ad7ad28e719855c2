/** What a long piece of work says while it runs; the terminal, `--json` and tests read the same objects. */
export type Event =
  | { event: "stage-start"; stage: string; title?: string }
  | { event: "stage-end"; stage: string; seconds: number; cached: boolean; peakRssBytes: number }
  | { event: "progress"; stage: string; done: number; total: number; unit?: string; note?: string }
  | {
      event: "train";
      stage: string;
      step: number;
      steps: number;
      loss: number;
      gradientNorm?: number;
      learningRate?: number;
      tokens?: number;
      tokensPerSecond?: number;
      parts?: Record<string, number>;
      /** Floating-point operations a second over those of a large matrix product on this machine. */
      shareOfPeak?: number;
      rssBytes?: number;
      secondsLeft?: number;
    }
  | { event: "evaluate"; stage: string; step: number; steps: number; loss: number; best: boolean }
  | { event: "notice"; level: "info" | "warning"; message: string };

export type OnEvent = (event: Event) => void;

export const ignoreEvents: OnEvent = () => {};

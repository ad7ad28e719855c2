import type { OnEvent } from "../base/index.js";

export interface StageRecord {
  name: string;
  seconds: number;
  peakRssBytes: number;
  cached: boolean;
}

/** Passes events on and keeps what each stage cost. */
export function recordStages(onEvent: OnEvent): { onEvent: OnEvent; stages: StageRecord[] } {
  const stages: StageRecord[] = [];
  return {
    stages,
    onEvent(event) {
      if (event.event === "stage-end") {
        const { stage, seconds, cached, peakRssBytes } = event;
        stages.push({ name: stage, seconds, peakRssBytes, cached });
      }
      onEvent(event);
    },
  };
}

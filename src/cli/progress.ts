import { type Event, formatBytes, formatSeconds, type OnEvent } from "../base/index.js";

export interface Progress {
  onEvent: OnEvent;
  /** Ends a line that is still being rewritten. */
  end(): void;
}

/** Shows events as lines: one that is rewritten on a terminal, one at each tenth of a stage elsewhere. */
export function createProgress(stream: NodeJS.WriteStream): Progress {
  const live = stream.isTTY === true;
  let open = false;
  let stage = { name: "", total: 0, firstMs: 0, firstDone: 0, lastDone: 0, tenths: 0 };

  const end = () => {
    if (open) stream.write("\n");
    open = false;
  };
  const line = (text: string) => {
    if (live && open) stream.write("\r\x1b[2K");
    stream.write(`${text}\n`);
    open = false;
  };
  const rewrite = (text: string) => {
    if (live) stream.write(`\r\x1b[2K${text.slice(0, (stream.columns ?? 120) - 1)}`);
    open = live;
  };

  const step = (name: string, done: number, total: number, text: string) => {
    const now = performance.now();
    // A stage may count several things, one after the other.
    if (name !== stage.name || total !== stage.total || done < stage.lastDone) {
      stage = { name, total, firstMs: now, firstDone: done, lastDone: done, tenths: 0 };
    }
    stage.lastDone = done;
    const left = timeLeft(stage, now, done, total);
    const shown = `  ${name.padEnd(22)} ${bar(done / total)} ${text}${left}`;
    if (live) return rewrite(shown);
    const tenths = Math.floor((10 * done) / total);
    if (tenths <= stage.tenths) return;
    stage.tenths = tenths;
    line(shown);
  };

  const onEvent = (event: Event) => {
    switch (event.event) {
      case "stage-start":
        return line(`${event.stage}${event.title ? `: ${event.title}` : ""}`);
      case "stage-end":
        return line(stageEnd(event));
      case "progress":
        return step(
          event.stage,
          event.done,
          event.total,
          event.unit === "bytes" ? bytesDone(event) : `${event.done}/${event.total}${suffix(event)}`,
        );
      case "train":
        return step(event.stage, event.step, event.steps, trainStep(event));
      case "evaluate":
        return line(
          `  ${event.stage} step ${event.step}: loss ${event.loss.toFixed(4)}${event.best ? ", the best so far" : ""}`,
        );
      case "notice":
        return line(event.level === "warning" ? `warning: ${event.message}` : `  ${event.message}`);
      default:
        event satisfies never;
    }
  };
  return { onEvent, end };
}

/** `step 12/80 loss 1.8312, gradient 0.93, rate 1.9e-4, 212 tok/s, 78 % of peak, 2.4 GiB`. */
function trainStep(event: Extract<Event, { event: "train" }>): string {
  const { step, steps, loss, gradientNorm, learningRate, tokensPerSecond, shareOfPeak, rssBytes } = event;
  return [
    `step ${step}/${steps} loss ${loss.toFixed(4)}`,
    gradientNorm !== undefined && `gradient ${gradientNorm.toPrecision(2)}`,
    learningRate !== undefined && `rate ${learningRate.toPrecision(2)}`,
    tokensPerSecond !== undefined && `${Math.round(tokensPerSecond)} tok/s`,
    shareOfPeak !== undefined && `${Math.round(100 * shareOfPeak)} % of peak`,
    rssBytes !== undefined && formatBytes(rssBytes),
  ]
    .filter((part) => part !== false)
    .join(", ");
}

type Step = Extract<Event, { event: "progress" }>;

const suffix = ({ unit, note }: Step) => [unit, note].map((text) => (text ? ` ${text}` : "")).join("");

const bytesDone = ({ done, total, note }: Step) =>
  `${formatBytes(done)} of ${formatBytes(total)}${note ? ` ${note}` : ""}`;

function stageEnd({ stage, seconds, cached, peakRssBytes }: Extract<Event, { event: "stage-end" }>): string {
  const how = cached ? "found in the store" : `${formatSeconds(seconds)}, peak ${formatBytes(peakRssBytes)}`;
  return `  ${stage.padEnd(22)} done (${how})`;
}

function timeLeft(stage: { firstMs: number; firstDone: number }, now: number, done: number, total: number): string {
  if (done <= stage.firstDone || done >= total) return "";
  const secondsEach = (now - stage.firstMs) / 1000 / (done - stage.firstDone);
  return `, ${formatSeconds(secondsEach * (total - done))} left`;
}

function bar(share: number): string {
  const full = Math.max(0, Math.min(20, Math.round(share * 20)));
  return `${"█".repeat(full)}${"░".repeat(20 - full)}`;
}

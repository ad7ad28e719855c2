/** @module Counters of the server as Prometheus reads them. */
import type { CompletionTimings } from "../llamacpp/index.js";
import type { ModelPool } from "./model-pool.js";

export interface Metrics {
  request(route: string, status: number, seconds: number): void;
  answer(model: string, timings: CompletionTimings): void;
  render(pool: ModelPool): string;
}

const firstTokenBuckets = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
const durationBuckets = [0.01, 0.05, 0.25, 1, 5, 15, 60, 300];

type Labels = Readonly<Record<string, string | number>>;

export function createMetrics(): Metrics {
  const requests = new Map<string, number>();
  const tokens = new Map<string, number>();
  const durations = createHistogram(durationBuckets);
  const firstTokens = createHistogram(firstTokenBuckets);
  const add = (map: Map<string, number>, labels: Labels, value = 1) => {
    const key = renderLabels(labels);
    map.set(key, (map.get(key) ?? 0) + value);
  };
  return {
    request(route, status, seconds) {
      add(requests, { route, status });
      durations.observe(seconds);
    },
    answer(model, { promptTokens, cachedTokens, generatedTokens, firstTokenMs }) {
      add(tokens, { model, kind: "prompt" }, promptTokens);
      add(tokens, { model, kind: "cached" }, cachedTokens);
      add(tokens, { model, kind: "generated" }, generatedTokens);
      firstTokens.observe(firstTokenMs / 1000);
    },
    render(pool) {
      const loaded = pool.loaded();
      const gauge = (value: (entry: (typeof loaded)[number]) => number) =>
        loaded.map((entry) => [renderLabels({ model: entry.name }), value(entry)] as const);
      const sections = [
        family("espalier_requests_total", "counter", "Requests answered, by route and HTTP status.", requests),
        family("espalier_tokens_total", "counter", "Tokens by model: prompt (evaluated), cached, generated.", tokens),
        durations.render("espalier_request_seconds", "Seconds from request to the end of the answer."),
        firstTokens.render("espalier_first_token_seconds", "Seconds to the first generated token."),
        family(
          "espalier_running",
          "gauge",
          "Requests that run.",
          gauge(({ model }) => model.load().running),
        ),
        family(
          "espalier_waiting",
          "gauge",
          "Requests that wait.",
          gauge(({ model }) => model.load().waiting),
        ),
        family(
          "espalier_model_bytes",
          "gauge",
          "Memory of loaded models.",
          gauge(({ model }) => model.info.memoryBytes),
        ),
        family("process_resident_memory_bytes", "gauge", "Memory of the server's own process.", [
          ["", process.memoryUsage.rss()],
        ]),
      ];
      return `${sections.join("\n")}\n`;
    },
  };
}

type Samples = Iterable<readonly [labels: string, value: number]>;

function family(name: string, type: string, help: string, samples: Samples): string {
  const lines = [...samples].map(([labels, value]) => `${name}${labels} ${value}`);
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...lines].join("\n");
}

function renderLabels(labels: Labels): string {
  const escaped = (value: string | number) =>
    String(value).replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
  return `{${Object.entries(labels)
    .map(([name, value]) => `${name}="${escaped(value)}"`)
    .join(",")}}`;
}

function createHistogram(bounds: readonly number[]) {
  const counts = bounds.map(() => 0);
  let count = 0;
  let sum = 0;
  return {
    observe(value: number) {
      count++;
      sum += value;
      for (const [i, bound] of bounds.entries()) if (value <= bound) counts[i]!++;
    },
    render(name: string, help: string): string {
      const buckets = bounds.map((bound, i) => `${name}_bucket{le="${bound}"} ${counts[i]}`);
      const rest = [`${name}_bucket{le="+Inf"} ${count}`, `${name}_sum ${sum}`, `${name}_count ${count}`];
      return [`# HELP ${name} ${help}`, `# TYPE ${name} histogram`, ...buckets, ...rest].join("\n");
    },
  };
}

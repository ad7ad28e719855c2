/** @module POST /api/pull: a model comes from the hub while lines tell how far it is, and is served from then on. */
import { type Event, type OnEvent, z } from "../../base/index.js";
import { type HubName, type Pulled, parseModelName } from "../../hub/index.js";
import { createChannel } from "../channel.js";
import type { Exchange, Reply } from "../http.js";
import { invalid } from "../refusal.js";
import { harmless, parseRequest } from "../schema.js";
import type { Service } from "../service.js";
import { line } from "./dialect.js";

export type Pull = (name: HubName, options: { signal: AbortSignal; onEvent: OnEvent }) => Promise<Pulled>;

const pullSchema = z.strictObject({
  model: z.string().optional(),
  name: z.string().optional(),
  stream: z.boolean().default(true),
  insecure: harmless,
});

export async function pullModel(service: Service, pull: Pull, { body, signal }: Exchange): Promise<Reply> {
  const { model, name: former, stream } = parseRequest(pullSchema, body);
  const asked = model ?? former ?? "";
  const name = hubName(asked);
  const lines = pullLines(service, pull, name, asked, signal);
  if (stream) return { kind: "stream", type: "application/x-ndjson", pieces: asText(lines) };
  for await (const _ of lines);
  return { kind: "json", value: { status: "success" } };
}

function hubName(asked: string): HubName {
  const name = parseModelName(asked);
  if (name.kind === "hub") return name;
  throw invalid("model", "hf:owner/name, with :quant, @revision or /file after it", JSON.stringify(asked));
}

interface Line {
  status: string;
  digest?: string;
  total?: number;
  completed?: number;
}

async function* asText(lines: AsyncIterable<Line>): AsyncIterable<string> {
  for await (const value of lines) yield line(value);
}

async function* pullLines(
  service: Service,
  pull: Pull,
  name: HubName,
  asked: string,
  signal: AbortSignal,
): AsyncIterable<Line> {
  yield { status: "pulling manifest" };
  const channel = createChannel<Line>();
  pull(name, { signal, onEvent: (event) => channel.push(...lineOf(event, name)) }).then(
    (pulled) => {
      serve(service, pulled, asked);
      channel.end();
    },
    (error: unknown) => channel.end(error),
  );
  yield* channel;
  yield { status: "verifying sha256 digest" };
  yield { status: "writing manifest" };
  yield { status: "success" };
}

function lineOf(event: Event, { repository }: HubName): [Line] {
  if (event.event !== "progress") return [{ status: event.event === "notice" ? event.message : "pulling" }];
  return [{ status: `pulling ${repository}`, digest: repository, total: event.total, completed: event.done }];
}

/** Only GGUF files run; what else was pulled is there for other commands. */
function serve({ pool }: Service, { path }: Pulled, asked: string): void {
  if (path.endsWith(".gguf")) pool.add({ name: asked, gguf: path });
}

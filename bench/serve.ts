/**
 * @module What HTTP keeps of llama.cpp's speed. node-llama-cpp driven directly and `espalier serve`, each in a process of its
 * own, take the same prompts of token ids in turns; then 200 clients ask for a minute.
 *
 * `npm run bench -- serve [FILE.gguf] [THREADS] [SECONDS]`: the largest file of the optional test data, two threads, 60 s.
 * `--llama-server PATH` lets llama.cpp's own server take the turns too.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { createRng, formatBytes, median } from "../src/base/index.js";
import { repositoryPath, sharedPath } from "../src/base/testing.js";
import { askDirect, startDirect } from "./engine.js";
import type { DirectResult } from "./engine-direct.js";
import type { Bench } from "./main.js";
import { type RateRow, rateRow, renderRates, scoringBound } from "./rates.js";

const [rounds, clients, promptTokens, answerTokens, contextSize] = [5, 8, 512, 64, 1024];
const [crowd, queue] = [200, 150];

export const serve: Bench = async ({ json, args }) => {
  const at = process.argv.indexOf("--llama-server");
  const binary = at < 0 ? undefined : process.argv[at + 1];
  const [file = largestGguf(), threads = "2", seconds = "60"] = args.filter((word) => word !== binary);
  const options = { gguf: file, threads: Number(threads), contextSize, sequences: clients };
  const direct = await startDirect(options);
  const served = await startServe(options);
  const peer = binary === undefined ? undefined : await startLlamaServer(binary, options);
  const rows = await measure(direct, { served, peer, bound: await scoringBound(file, promptTokens) });
  direct.disconnect();
  peer?.child.kill();
  const crowded = await askInCrowd(served, Number(seconds));
  served.child.kill("SIGTERM");
  process.stdout.write(
    json ? `${JSON.stringify({ file, threads, rows, crowded }, null, 2)}\n` : render(file, rows, crowded),
  );
};

function largestGguf(): string {
  const root = sharedPath("models");
  const files =
    root === undefined ? [] : readdirSync(root, { recursive: true }).map((name) => join(root, String(name)));
  const ggufs = files.filter((name) => name.endsWith(".gguf"));
  const [largest] = ggufs.sort((a, b) => statSync(b).size - statSync(a).size);
  if (largest === undefined) throw new Error("no model: name a .gguf file");
  return largest;
}

type Options = Parameters<typeof startDirect>[0];

interface Server {
  url: string;
  child: ChildProcess;
}

async function startServe({ gguf, threads, sequences }: Options): Promise<Server> {
  const limits = ["--parallel", String(sequences), "--context", String(contextSize), "--queue", String(queue)];
  const words = ["serve", `m=${gguf}`, "--port", "0", "--threads", String(threads), "--json", ...limits];
  const child = spawn(process.execPath, ["--import", "tsx", repositoryPath("src/cli/main.ts"), ...words], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const [line] = await once(child.stdout, "data");
  return { child, url: (JSON.parse(String(line)) as { url: string }).url };
}

async function startLlamaServer(binary: string, { gguf, threads, sequences }: Options): Promise<Server> {
  const port = await freePort();
  const sizes = ["-c", String(contextSize * sequences), "-np", String(sequences), "-t", String(threads)];
  const child = spawn(binary, ["-m", gguf, "--port", String(port), ...sizes], { stdio: "ignore" });
  const url = `http://127.0.0.1:${port}`;
  while (!(await fetch(`${url}/health`).catch(() => undefined))?.ok) await sleep(200);
  return { url, child };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}

interface Measured {
  served: Server;
  peer: Server | undefined;
  /** Of scored prompts: see `scoringBound`. */
  bound: number;
}

async function measure(direct: ChildProcess, { served, peer, bound }: Measured): Promise<RateRow[]> {
  const rng = createRng("serve bench");
  const ids = (count: number) => Array.from({ length: count }, () => 10 + rng.int(30_000));
  const keys = ["one", "many", "prefill", "scored", "peer"] as const;
  const samples = Object.fromEntries(keys.map((key) => [key, [] as [base: number, served: number][]])) as Record<
    (typeof keys)[number],
    [number, number][]
  >;
  for (let round = 0; round <= rounds; round++) {
    const [short, long] = [Array.from({ length: clients }, () => ids(16)), ids(promptTokens)];
    const theirs = async () => {
      const one = await askDirect(direct, { prompts: [short[0]!], tokens: answerTokens });
      const many = await askDirect(direct, { prompts: short, tokens: answerTokens });
      const prompt = await askDirect(direct, { prompts: [long], tokens: 1 });
      return { one: one.decodeSeconds, many: many.decodeSeconds, prefill: prompt.promptSeconds };
    };
    const ours = async ({ url }: Server) => {
      const one = await timeStreams(url, [short[0]!], answerTokens);
      const many = await timeStreams(
        url,
        short.map((prompt) => prompt.toReversed()),
        answerTokens,
      );
      const prompt = await timeStreams(url, [long], 1);
      return { one: one.decodeSeconds, many: many.decodeSeconds, prefill: prompt.promptSeconds };
    };
    const first = round % 2 === 0;
    const before = first ? await theirs() : undefined;
    const mine = await ours(served);
    const scored = await timeScores(served.url, long.toReversed());
    const base = before ?? (await theirs());
    const other = peer && (await ours(peer));
    process.stderr.write(`round ${round} of ${rounds}\n`);
    // The first round warms up.
    if (round === 0) continue;
    for (const key of ["one", "many", "prefill"] as const) samples[key].push([base[key], mine[key]]);
    samples.scored.push([mine.prefill, scored]);
    if (other) samples.peer.push([other.many, mine.many]);
  }
  const step = answerTokens - 1;
  return [
    rateRow("decode, 1 client", samples.one, step, { wanted: 0.97 }),
    rateRow(`decode, ${clients} clients`, samples.many, clients * step, { wanted: 0.95 }),
    rateRow("prefill", samples.prefill, promptTokens, { wanted: 0.97 }),
    rateRow("prompt log-probabilities / prefill through HTTP", samples.scored, promptTokens, { wanted: 0.9, bound }),
    ...(peer
      ? [rateRow(`decode, ${clients} clients / llama-server`, samples.peer, clients * step, { wanted: 0.95 })]
      : []),
  ];
}

/** No end token of the models of the test data is likely then. */
const bias = Object.fromEntries([0, 1, 2].map((id) => [id, -100]));

/** Streams of as many clients at once, timed as the directly driven sequences are. */
async function timeStreams(url: string, prompts: readonly number[][], tokens: number): Promise<DirectResult> {
  const begin = performance.now();
  let first = 0;
  const one = async (prompt: number[]) => {
    const fields = { model: "m", prompt, max_tokens: tokens, temperature: 0, stream: true, logit_bias: bias };
    const response = await post(url, "/v1/completions", fields);
    let seen = false;
    for await (const piece of response.body!) {
      if (!seen && Buffer.from(piece).includes('"text":"')) {
        seen = true;
        first = performance.now();
      }
    }
  };
  await Promise.all(prompts.map(one));
  return { promptSeconds: (first - begin) / 1000, decodeSeconds: (performance.now() - first) / 1000 };
}

/** Seconds of a prompt's log-probabilities. */
async function timeScores(url: string, prompt: readonly number[]): Promise<number> {
  const begin = performance.now();
  const fields = { model: "m", prompt, max_tokens: 0, echo: true, logprobs: 0 };
  await (await post(url, "/v1/completions", fields)).json();
  return (performance.now() - begin) / 1000;
}

async function post(url: string, path: string, fields: object): Promise<Response> {
  const response = await fetch(url + path, { method: "POST", body: JSON.stringify(fields) });
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return response;
}

interface Crowd {
  seconds: number;
  /** Answers by status; "error" are those that had none. */
  statuses: Record<string, number>;
  /** Medians of the resident memory of the server and its model, in bytes. */
  rssAfterWarmUp: number;
  rssAtEnd: number;
}

/** More clients than run and wait: the others are told to come again. */
async function askInCrowd({ url, child }: Server, seconds: number): Promise<Crowd> {
  const statuses: Record<string, number> = {};
  const until = performance.now() + seconds * 1000;
  const ask = async (client: number) => {
    for (let turn = 0; performance.now() < until; turn++) {
      const messages = [{ role: "user", content: `Client ${client} asks for the ${turn}th time.` }];
      const body = JSON.stringify({ model: "m", messages, max_tokens: 4, stream: turn % 2 === 0 });
      const status = await fetch(`${url}/v1/chat/completions`, { method: "POST", body }).then(
        async (response) => {
          const text = await response.text();
          return response.ok && text.includes('"error"') ? "error" : String(response.status);
        },
        () => "error",
      );
      statuses[status] = (statuses[status] ?? 0) + 1;
      if (status === "503") await sleep(1000);
    }
  };
  const rss: number[] = [];
  const sampler = setInterval(() => rss.push(rssOf(child.pid!)), 500);
  await Promise.all(Array.from({ length: crowd }, (_, i) => ask(i)));
  clearInterval(sampler);
  const third = Math.floor(rss.length / 3);
  return {
    seconds,
    statuses,
    rssAfterWarmUp: median(rss.slice(third, 2 * third)),
    rssAtEnd: median(rss.slice(-third)),
  };
}

/** Of a process and its descendants, in bytes; Linux. */
function rssOf(pid: number): number {
  try {
    const kib = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? "0";
    const tasks = readdirSync(`/proc/${pid}/task`);
    const children = tasks.flatMap((task) =>
      readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").split(" ").filter(Boolean),
    );
    return Number(kib) * 1024 + children.reduce((sum, one) => sum + rssOf(Number(one)), 0);
  } catch {
    return 0;
  }
}

function render(
  file: string,
  rows: readonly RateRow[],
  { seconds, statuses, rssAfterWarmUp, rssAtEnd }: Crowd,
): string {
  const answers = Object.entries(statuses)
    .map(([status, count]) => `${count} x ${status}`)
    .join(", ");
  return [
    file,
    ...renderRates(rows, "base", "served"),
    `${crowd} clients for ${seconds} s: ${answers}; memory ${formatBytes(rssAfterWarmUp)} after warm-up, ${formatBytes(rssAtEnd)} at the end`,
    "",
  ].join("\n");
}

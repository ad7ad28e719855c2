// Runs `npm start` and checks what it leaves: result.json against its schema, a child that loads and writes, exports and
// report in place, memory within its bound.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { z } from "zod";

const promisedSeconds = 300; // on two cores
const promisedBytes = 2 ** 30;

const { out } = readJson("recipes/start.json");
const fresh = !existsSync(out);
const started = performance.now();
run("npm", ["start"]);
const seconds = Math.round((performance.now() - started) / 1000);
note(
  `npm start took ${seconds} s${fresh ? "" : " over what an earlier run left"}; promised: ${promisedSeconds} s on two cores`,
);

const result = readJson(join(out, "result.json"));
const schema = z.fromJSONSchema(readJson("schemas/result.schema.json"));
const checked = schema.safeParse(result);
if (!checked.success) fail(`result.json does not follow its schema:\n${z.prettifyError(checked.error)}`);

const { parent, child, exports, peakRssBytes } = result;
note(`${parent.parameters} -> ${child.parameters} parameters, KL ${child.kl.mean.toFixed(4)} nats a token`);
note(`peak resident memory ${(peakRssBytes / 2 ** 20).toFixed(0)} MiB`);
if (peakRssBytes > promisedBytes) fail(`peak resident memory ${peakRssBytes} is above ${promisedBytes} bytes`);

const shown = espalier("show", child.path);
if (shown.parameters !== child.parameters)
  fail(`show counts ${shown.parameters} parameters, result.json ${child.parameters}`);
const { text, ids } = espalier("generate", child.path, "--prompt", "Once upon a time", "--max-tokens", "16");
if (ids.length === 0) fail("the child generates nothing");
note(`the child writes "${text.trim()}"`);
for (const { path, format } of exports) {
  if (!existsSync(path)) fail(`${format}: ${path} is missing`);
  const named = readdirSync(dirname(path)).some((name) => name.endsWith("Modelfile"));
  if (format.startsWith("gguf") && !named) fail(`no Modelfile beside ${path}`);
}
if (!existsSync(join(out, "report.html"))) fail("report.html is missing");

function run(command, args) {
  const { status, signal } = spawnSync(command, args, { stdio: "inherit" });
  if (status !== 0) fail(`${command} ${args.join(" ")} ended with ${signal ?? status}`);
}

function espalier(...args) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["dist/cli/main.js", ...args, "--json"], {
    encoding: "utf8",
  });
  if (status !== 0) fail(`espalier ${args.join(" ")} ended with ${status}:\n${stderr}`);
  return JSON.parse(stdout);
}

function readJson(path) {
  return JSON.parse(readFileSync(path, "utf8"));
}

function note(text) {
  console.log(`  note: ${text}`);
}

function fail(message) {
  console.error(message);
  process.exit(1);
}

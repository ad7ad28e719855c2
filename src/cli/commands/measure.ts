import { Command } from "commander";
import { EspalierError, type Interval } from "../../base/index.js";
import type { BlockConfig, ModelConfig } from "../../models/index.js";
import type { MeasuredCosts } from "../../pipeline/index.js";
import type { CostTable, MeasuredTimes, Scenario } from "../../plan/index.js";
import { positiveInteger } from "../options.js";
import { type CommandIo, runCommand } from "../output.js";

export function createCommand(): Command {
  return new Command("measure")
    .description(
      "Measures in llama.cpp what every sub-block that could stand in a model takes, for budgets of speed. The JSON of --json is what --costs reads.",
    )
    .argument("<model>", "Hugging Face directory or .gguf file of the parent")
    .option("--type <type>", "number type of the weights in use: q8_0, f16, bf16 or f32", "q8_0")
    .option("--input <n>", "tokens of a prompt", positiveInteger, 512)
    .option("--output <n>", "tokens generated after it", positiveInteger, 128)
    .option("--batch <n>", "sequences decoded together", positiveInteger, 1)
    .option("--context <n>", "tokens that a sequence may have; input and output must fit", positiveInteger, 2048)
    .option("--ffn <percents>", "feed-forward widths, in percent of the parent's", "75,50,25,10")
    .option("--repeats <n>", "timed rounds, at least 2; more give narrower intervals", positiveInteger, 5)
    .option("--check", "also time whole models of these shapes, and say how far the sums are from them")
    .option("--store <dir>", "where measured times are kept", ".espalier")
    .addHelpText(
      "after",
      `
Examples:
  $ espalier measure models/stories260K --input 128 --output 64
  $ espalier measure model.gguf --type q8_0 --json > costs.json

Measure on an idle machine. Times already in the store are not measured again.`,
    )
    .action((path: string, options: MeasureOptions, command: Command) =>
      runCommand(command, (io) => measure(io, path, options)),
    );
}

interface MeasureOptions {
  type: string;
  input: number;
  output: number;
  batch: number;
  context: number;
  ffn: string;
  repeats: number;
  check?: boolean;
  store: string;
}

async function measure(io: CommandIo, path: string, options: MeasureOptions): Promise<void> {
  const [{ openModel }, { weightTypes }, { buildSpace }, pipeline] = await Promise.all([
    import("../../models/index.js"),
    import("../../plan/index.js"),
    import("../../puzzle/index.js"),
    import("../../pipeline/index.js"),
  ]);
  const type = weightTypes.find((known) => known === options.type);
  if (!type) throw badOption("--type", `one of ${weightTypes.join(", ")}`, options.type);
  const scenario = checkScenario(options);
  if (options.repeats < 2) throw badOption("--repeats", "at least 2: one round alone has no interval", "1");
  const model = await openModel(await pipeline.locate(path));
  try {
    const { config } = model;
    const whole = options.check ? checkedModels(config) : {};
    const measured = await pipeline.measureCosts({
      config,
      space: buildSpace(config, { targets: ["gguf"], ffnFractions: [1, ...fractions(options.ffn)] }),
      type,
      scenarios: [scenario],
      repeats: options.repeats,
      threads: io.threads,
      whole,
      store: pipeline.openStore(options.store),
      onEvent: io.onEvent,
      signal: io.signal,
    });
    for (const message of pipeline.doubtsOf(measured.table)) {
      io.onEvent({ event: "notice", level: "warning", message });
    }
    const checks = await checksOf(measured, whole, scenario);
    const result = options.check ? { ...measured.table, checks } : measured.table;
    io.result(result, () => render(measured.table, config, scenario, checks));
  } finally {
    await model.close();
  }
}

function checkScenario({ input, output, batch, context }: MeasureOptions): Scenario {
  if (input + output <= context) return { input, output, batch };
  throw badOption("--context", `at least ${input + output}, what --input and --output add up to`, String(context));
}

function fractions(text: string): number[] {
  const shares = text.split(",").map((part) => Number(part) / 100);
  if (shares.every((share) => share > 0 && share <= 1)) return shares;
  throw badOption("--ffn", "percents such as 75,50,25,10", text);
}

function badOption(where: string, expected: string, found: string): EspalierError {
  return new EspalierError({ where, expected, found, exitCode: 2 });
}

/** The parent, and a child as uneven as they come: every other layer without attention, feed-forwards of half the width. */
function checkedModels({ blocks }: ModelConfig): Record<string, BlockConfig[]> {
  const half = ({ ffn }: BlockConfig) =>
    ffn.kind === "swiglu" ? { ...ffn, width: 32 * Math.max(1, Math.round(ffn.width / 64)) } : ffn;
  const uneven = blocks.map(
    (block, layer): BlockConfig => ({
      attention: layer % 2 === 0 ? block.attention : { kind: "none" },
      ffn: half(block),
    }),
  );
  return { parent: [...blocks], "half of it": uneven };
}

interface Check {
  model: string;
  cost: "prefill" | "decode";
  /** Seconds. */
  predicted: number;
  measured: number;
}

async function checksOf(
  { table, whole }: MeasuredCosts,
  models: Readonly<Record<string, readonly BlockConfig[]>>,
  scenario: Scenario,
): Promise<Check[]> {
  const { speedCosts, totalCost } = await import("../../plan/index.js");
  const costs = speedCosts(table, scenario);
  return Object.entries(models).flatMap(([model, blocks]) => {
    const measured = speedCosts({ ...table, fixed: whole[model]! }, scenario);
    return (["prefill", "decode"] as const).map((cost) => ({
      model,
      cost,
      predicted: totalCost(costs[cost], blocks),
      measured: measured[cost].fixed,
    }));
  });
}

function render(table: CostTable, config: ModelConfig, { input, batch }: Scenario, checks: readonly Check[]): string {
  const { machine, type, versions } = table;
  const [first] = config.blocks;
  const own = (part: string, kind: object | undefined) =>
    table.shapes.find((shape) => shape.part === part && JSON.stringify(shape.config) === JSON.stringify(kind));
  const parent = [own("attention", first?.attention), own("ffn", first?.ffn)];
  const sum = (value: (times: MeasuredTimes) => number) =>
    parent.reduce((all, half) => all + (half ? value(half) : 0), 0);
  const depths = table.fixed.decode.map(({ depth }) => depth);
  const block = { prefill: sum(prefillOf), decode: sum(decodeOf) };
  const rows = [
    ...table.shapes.map((shape) => row(`${shape.part} ${shape.id}`, shape, block)),
    row("zero feed-forward", table.filler, block),
    row("fixed", table.fixed, block),
  ];
  return [
    `${machine.processor}, ${machine.threads} threads; ${type}; llama.cpp ${versions["llama.cpp"]}`,
    "",
    alignColumns([
      ["", `prefill ${input}`, "ms", "share", ...depths.flatMap((depth) => [`decode @${depth}`, "us"]), "share"],
      ...rows,
    ]),
    ...(table.anchor ? ["", renderAnchor(table.anchor)] : []),
    ...(batch > 1 ? ["", `a decoding step gives ${batch} sequences a token`] : []),
    ...(checks.length > 0 ? ["", "sums against whole models, in the same rounds:", ...checks.map(renderCheck)] : []),
  ].join("\n");
}

function renderAnchor({ prefill, decode }: NonNullable<CostTable["anchor"]>): string {
  return `blocks take ${prefill.toFixed(2)} (prompt) and ${decode.toFixed(2)} (step) times as long in the parent as in files of copies; the times above are those in the parent`;
}

const prefillOf = ({ prefill }: MeasuredTimes) => prefill[0]!.seconds.mean;
const decodeOf = ({ decode }: MeasuredTimes) => decode[0]!.seconds.mean;

/** Shares are of the parent's first block. */
function row(name: string, times: MeasuredTimes, block: { prefill: number; decode: number }): string[] {
  const share = (part: number, whole: number) => `${((100 * part) / whole).toFixed(0)} %`;
  const cells = (seconds: Interval, scale: number) => [
    (seconds.mean * scale).toPrecision(4),
    `± ${(((seconds.high - seconds.low) / 2) * scale).toPrecision(2)}`,
  ];
  return [
    name,
    ...cells(times.prefill[0]!.seconds, 1e3),
    share(prefillOf(times), block.prefill),
    ...times.decode.flatMap(({ seconds }) => cells(seconds, 1e6)),
    share(decodeOf(times), block.decode),
  ];
}

function alignColumns(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((cells) => cells[column]?.length ?? 0)));
  return rows
    .map((cells) => cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  "))
    .join("\n");
}

function renderCheck({ model, cost, predicted, measured }: Check): string {
  const off = (100 * (predicted / measured - 1)).toFixed(1);
  const ms = (seconds: number) => `${(1e3 * seconds).toPrecision(4)} ms`;
  return `  ${model.padEnd(12)} ${cost.padEnd(8)} predicted ${ms(predicted)}, measured ${ms(measured)} (${off} %)`;
}

/** @module `espalier train METHOD` and `espalier align METHOD`: a recipe of one stage, run. */
import { join } from "node:path";
import { Command } from "commander";
import { formatBytes, formatSeconds } from "../base/index.js";
import { type Method, methods, type TrainingRecipe, type TrainingResult } from "../pipeline/index.js";
import { addFieldOptions, flagOf } from "./method-options.js";
import { nonNegativeNumber, withCommonOptions } from "./options.js";
import { type CommandIo, runCommand } from "./output.js";

/** The command of a group, with one command below it for each of its methods. */
export function createGroupCommand(group: Method["group"], description: string): Command {
  const command = new Command(group).description(description).enablePositionalOptions();
  const own = Object.entries(methods).filter(([, method]) => method.group === group);
  for (const [name, method] of own) command.addCommand(createMethodCommand(name, method));
  const [first] = own;
  return command.addHelpText("after", first ? `\nExample:\n  $ espalier ${group} ${first[0]} ${first[1].example}` : "");
}

function createMethodCommand(name: string, method: Method): Command {
  const command = new Command(name)
    .description(method.summary)
    .argument("<model>", "Hugging Face directory or .gguf file")
    .requiredOption("--out <dir>", "where the results and the report go");
  addFieldOptions(command, method.fields)
    .option("--chat-template <file>", "for a model without one, or in place of its own: a Jinja file, or plain")
    .option("--seed <n>", "seed of everything random", nonNegativeNumber, 0)
    .option("--store <dir>", "where finished stages are kept", ".espalier")
    .addHelpText("after", `\nExample:\n  $ espalier ${method.group} ${name} ${method.example}`)
    .action((model: string, options: MethodOptions, self: Command) =>
      runCommand(self, async (io) => {
        const { checkTrainingRecipe } = await import("../pipeline/index.js");
        const { out, seed, store, chatTemplate, ...rest } = options;
        const fields = Object.fromEntries(Object.entries(rest).filter(([field]) => field in method.fields));
        const template = chatTemplate !== undefined && { chatTemplate };
        const recipe = { kind: "train", model, out, seed, ...template, stages: [{ method: name, ...fields }] };
        const checked = checkTrainingRecipe(recipe, `espalier ${method.group} ${name}`);
        const command = commandLine(name, method, model, out, { ...template, ...fields });
        await runTrainingRecipe(checked, { store, command }, io);
      }),
    );
  return withCommonOptions(command);
}

interface MethodOptions extends Record<string, unknown> {
  out: string;
  seed: number;
  store: string;
  chatTemplate?: string;
}

function commandLine(
  name: string,
  { group }: Method,
  model: string,
  out: string,
  fields: Record<string, unknown>,
): string {
  const flags = Object.entries(fields).flatMap(([field, value]) =>
    [value].flat().map((one) => (one === true ? `--${flagOf(field)}` : `--${flagOf(field)} ${one}`)),
  );
  return ["espalier", group, name, model, ...flags, "--out", out].join(" ");
}

/** What `run`, `train` and `align` share: the run, then its tables and where everything lies. */
export async function runTrainingRecipe(
  recipe: TrainingRecipe,
  { store, command }: { store: string; command: string },
  io: CommandIo,
): Promise<void> {
  const { runTraining } = await import("../pipeline/index.js");
  const { json: _json, result: show, ...context } = io;
  const { result, table } = await runTraining(recipe, { ...context, store, command });
  show(result, () => ["", table, "", ...places(result)].join("\n"));
}

function places({ out, policy, stages, seconds, peakRssBytes }: TrainingResult): string[] {
  const data = stages
    .filter(({ makes }) => makes === "data")
    .map(({ path }) => `data         ${join(path, "data.jsonl")}`);
  const rewards = stages
    .filter(({ makes }) => makes === "reward")
    .map(({ path }) => `reward       ${join(path, "model")}`);
  return [
    ...(policy === undefined ? [] : [`model        ${policy}`]),
    ...rewards,
    ...data,
    `report       ${join(out, "report.html")}`,
    `took         ${formatSeconds(seconds)}, peak ${formatBytes(peakRssBytes)}`,
    ...(policy === undefined
      ? []
      : [
          "",
          "next:",
          `  npx espalier chat ${policy}`,
          `  npx espalier export ${policy} --format gguf --out model.gguf`,
        ]),
  ];
}

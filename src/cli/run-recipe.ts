import { join } from "node:path";
import { formatBytes, formatSeconds } from "../base/index.js";
import { locateInputs, type Recipe, reshape } from "../pipeline/index.js";
import type { CommandIo } from "./output.js";

export interface RunRecipeOptions {
  store: string;
  dryRun?: boolean;
  /** What the user typed, for the report. */
  command: string;
}

/** What `run` and `reshape` share: the run, then the table and where everything lies. */
export async function runRecipe(
  asked: Recipe,
  { store, dryRun, command }: RunRecipeOptions,
  io: CommandIo,
): Promise<void> {
  const { json: _json, result: _result, ...context } = io;
  const recipe = await locateInputs(asked);
  if (dryRun) {
    const { forecast, renderForecast } = await import("../pipeline/index.js");
    const outlook = await forecast(recipe, { ...context, store });
    return io.result(outlook, () => renderForecast(outlook));
  }
  const { result, table, samples } = await reshape(recipe, { ...context, store, command });
  io.result(result, () =>
    [
      "",
      table,
      "",
      samples,
      "",
      ...(result.children ?? [{ name: "child", ...result }]).flatMap(({ name, child, exports }) => [
        `${name.padEnd(12)} ${child.path}`,
        ...exports.map(({ path, format, type }) => `${`${format} ${type}`.padEnd(12)} ${path}`),
      ]),
      `report       ${join(recipe.out, "report.html")}`,
      `took         ${formatSeconds(result.seconds)}, peak ${formatBytes(result.peakRssBytes)}`,
      "",
      "next:",
      `  npx espalier generate ${result.child.path} --prompt "${result.parent.chat ? "Who are you?" : "Once upon a time"}"${result.parent.chat ? " --chat" : ""}`,
      `  npx espalier show ${result.child.path}`,
      `  npx espalier perplexity ${result.child.path} --text YOUR.txt --against ${recipe.parent}`,
    ].join("\n"),
  );
}

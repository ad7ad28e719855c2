/** @module The model card of a child: what was changed, from what, measured how. */
import { formatCount } from "../base/index.js";
import { type BlockConfig, type ModelConfig, modelParameters } from "./config.js";

export interface CardFacts {
  name: string;
  parent: { name: string; parameters: number };
  /** The child's configuration as written. */
  config: ModelConfig;
  /** Licence id such as `mit`; the files themselves lie beside the card. */
  licence?: string;
  /** Names of licence and notice files carried over. Defaults to none. */
  legalFiles?: readonly string[];
  /** What was done to the parent, one sentence each, in order. */
  changes: readonly string[];
  /** Measured numbers as a table, and how they were measured. */
  measured?: { columns: readonly string[]; rows: readonly (readonly string[])[]; notes: readonly string[] };
  /** Commands that reproduce or use the model. Defaults to none. */
  commands?: readonly string[];
  /** Version of the tool that wrote it. */
  version?: string;
}

/** The card as Markdown with the front matter that model hubs read. */
export function renderModelCard(facts: CardFacts): string {
  const { name, parent, config, changes, commands = [], version } = facts;
  const parameters = modelParameters(config);
  const share = ((100 * parameters) / parent.parameters).toFixed(1);
  const size =
    parameters === parent.parameters
      ? "all of them kept"
      : `${formatCount(parent.parameters)}; ${share} % of them kept`;
  const sections = [
    frontMatter(facts),
    `# ${name}`,
    `A model of ${formatCount(parameters)} parameters (${parameters.toLocaleString("en-US")}), made from **${parent.name}** (${size}) by [Espalier](https://www.npmjs.com/package/espalier)${version ? ` ${version}` : ""}.`,
    section("What was changed", changes.map((change) => `- ${change}`).join("\n")),
    section("Blocks", blockTable(config.blocks)),
    measuredSection(facts.measured),
    commands.length > 0 ? section("Commands", `\`\`\`sh\n${commands.join("\n")}\n\`\`\``) : "",
    section("Licence", licenceText(facts)),
    section("Limits", limits(parent.name)),
  ];
  return `${sections.filter(Boolean).join("\n\n")}\n`;
}

function section(title: string, body: string): string {
  return body ? `## ${title}\n\n${body}` : "";
}

function frontMatter({ licence, parent, config }: CardFacts): string {
  const smaller = modelParameters(config) < parent.parameters;
  // A hub takes a base model as OWNER/NAME only.
  const base = parent.name.includes("/") ? [`base_model: ${JSON.stringify(parent.name)}`] : [];
  const lines = [
    ...(licence === undefined ? [] : [`license: ${licence}`]),
    ...base,
    "pipeline_tag: text-generation",
    "tags:\n  - espalier",
    ...(smaller ? ["  - pruned"] : []),
  ];
  return `---\n${lines.join("\n")}\n---`;
}

/** Neighbouring blocks that are alike share a row. */
function blockTable(blocks: readonly BlockConfig[]): string {
  const rows: { first: number; last: number; attention: string; ffn: string }[] = [];
  for (const [layer, { attention, ffn }] of blocks.entries()) {
    const row = {
      first: layer,
      last: layer,
      attention: attention.kind === "gqa" ? `${attention.kvHeads} kv heads` : attention.kind,
      ffn: ffn.kind === "swiglu" ? `SwiGLU ${ffn.width}` : ffn.kind,
    };
    const before = rows.at(-1);
    if (before?.attention === row.attention && before.ffn === row.ffn) before.last = layer;
    else rows.push(row);
  }
  const cells = rows.map(({ first, last, attention, ffn }) => [
    first === last ? `${first}` : `${first}-${last}`,
    attention,
    ffn,
  ]);
  return table(["layer", "attention", "feed-forward"], cells);
}

function table(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(columns), `|${columns.map(() => "---").join("|")}|`, ...rows.map(line)].join("\n");
}

function measuredSection(measured: CardFacts["measured"]): string {
  if (!measured) return "";
  const notes = measured.notes.map((note) => `- ${note}`).join("\n");
  return section("Measured", [table(measured.columns, measured.rows), notes].filter(Boolean).join("\n\n"));
}

function licenceText({ licence, legalFiles = [], parent }: CardFacts): string {
  const stated =
    licence === undefined
      ? `${parent.name} states no licence: ask its makers before publishing.`
      : `\`${licence}\`, as ${parent.name}.`;
  return legalFiles.length > 0
    ? `${stated} Carried over unchanged: ${legalFiles.map((file) => `\`${file}\``).join(", ")}.`
    : stated;
}

function limits(parent: string): string {
  return `It knows nothing that ${parent} did not know, repeats its biases, and may have lost skills that were not measured above.`;
}

/** What a model card says that the model was made from: its `base_model`, or the sentence that Espalier writes. */
export function parentInCard(card: string): string | undefined {
  const [, front = ""] = /^---\n(.*?)\n---/s.exec(card) ?? [];
  const [, base] = /^base_model:\s*(?:\n?\s*-\s*)?["']?([^"'\n[\]]+?)["']?\s*$/m.exec(front) ?? [];
  return base ?? /, made from \*\*(.+?)\*\*/.exec(card)?.[1];
}

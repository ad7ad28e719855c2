import { Command } from "commander";
import type { Model } from "../../models/index.js";
import { runCommand } from "../output.js";

export function createCommand(): Command {
  return new Command("show")
    .description("Says what a model is: configuration, blocks, parameters, tokenizer and sizes. Reads no weights.")
    .argument("<model>", "Hugging Face directory or .gguf file")
    .addHelpText("after", "\nExample:\n  $ espalier show models/stories260K")
    .action((path: string, _options: unknown, command: Command) =>
      runCommand(command, async (io) => {
        const { openModel } = await import("../../models/index.js");
        const { cachedPath } = await import("../../hub/index.js");
        const model = await openModel(await cachedPath(path));
        try {
          const facts = await describeModel(model);
          for (const message of model.notices) io.onEvent({ event: "notice", level: "warning", message });
          io.result(facts, () => renderFacts(facts));
        } finally {
          await model.close();
        }
      }),
    );
}

type Facts = Awaited<ReturnType<typeof describeModel>>;

/** What `--json` prints. */
async function describeModel(model: Model) {
  const { blockParameters, kvBytesPerToken, modelParameters } = await import("../../models/index.js");
  const { config, sidecars } = model;
  const { blocks, ...configuration } = config;
  return {
    path: model.path,
    name: sidecars.name,
    format: model.format,
    licence: sidecars.licence ?? null,
    legalFiles: sidecars.legal.map(({ name }) => name),
    parameters: modelParameters(config),
    config: configuration,
    blocks: blocks.map((block) => ({ ...block, parameters: blockParameters(config, block) })),
    kvBytesPerToken: kvBytesPerToken(config),
    tokenizer: await describeTokenizer(model),
    sizes: await exportSizes(model),
    notices: [...model.notices],
  };
}

async function describeTokenizer({ sidecars, path }: Model) {
  if (!sidecars.tokenizer) return null;
  const { loadTokenizer } = await import("../../tokenizer/index.js");
  const { vocabSize, bosTokenId, eosTokenIds, addBos, ...tokenizer } = loadTokenizer(sidecars.tokenizer, path);
  const text = (id: number | undefined) => (id === undefined ? null : (tokenizer.idToToken(id) ?? null));
  return {
    source: sidecars.tokenizer.kind === "hf" ? "tokenizer.json" : "gguf",
    vocabSize,
    bos: text(bosTokenId),
    eos: eosTokenIds.map(text),
    addBos,
    chatTemplate: sidecars.chatTemplate !== undefined,
  };
}

/** Bytes of the GGUF file that an export of each type would write; null without a tokenizer, which GGUF must have. */
async function exportSizes(model: Model) {
  if (!model.sidecars.tokenizer) return null;
  const { ggufExportBytes } = await import("../../models/index.js");
  const types = ["f32", "f16", "bf16", "q8_0"] as const;
  try {
    return Object.fromEntries(types.map((type) => [type, ggufExportBytes(model, type)]));
  } catch (error) {
    const { EspalierError } = await import("../../base/index.js");
    // A tokenizer that GGUF cannot hold is no reason not to show the model.
    if (error instanceof EspalierError) return null;
    throw error;
  }
}

function renderFacts(facts: Facts): string {
  const { config, tokenizer, sizes } = facts;
  const count = (value: number) => value.toLocaleString("en-US");
  const rows: [string, string][] = [
    ["model", `${facts.name} (${config.family}, from ${facts.format === "hf" ? "a Hugging Face directory" : "GGUF"})`],
    ["parameters", `${count(facts.parameters)}${config.tiedEmbeddings ? ", embedding and head tied" : ""}`],
    ["licence", [facts.licence ?? "not stated", ...facts.legalFiles].join(", ")],
    ["hidden size", count(config.hiddenSize)],
    ["heads", `${config.heads} of ${config.headDim}`],
    ["vocabulary", count(config.vocabSize)],
    [
      "positions",
      `${count(config.maxPositions)}, rotary base ${count(config.rope.theta)}${renderScaling(config.rope)}`,
    ],
    ["kv cache", `${count(facts.kvBytesPerToken)} bytes a token (f16)`],
    ["tokenizer", tokenizer ? renderTokenizer(tokenizer) : "none"],
    ["as GGUF", sizes ? renderSizes(sizes) : "cannot be written: no tokenizer that GGUF can hold"],
  ];
  const lines = rows.map(([name, value]) => `${name.padEnd(12)} ${value}`);
  return [...lines, "", ...renderBlocks(facts)].join("\n");
}

function renderScaling({ scaling }: Facts["config"]["rope"]): string {
  return scaling ? `, ${scaling.type} scaling by ${scaling.factor}` : "";
}

function renderTokenizer({ vocabSize, source, bos, eos, chatTemplate }: NonNullable<Facts["tokenizer"]>): string {
  const chat = chatTemplate ? "chat template" : "no chat template";
  return `${vocabSize.toLocaleString("en-US")} tokens from ${source}, starts ${bos ?? "nothing"}, ends ${eos.join(" ")}, ${chat}`;
}

function renderSizes(sizes: Record<string, number>): string {
  return Object.entries(sizes)
    .map(([type, bytes]) => `${type} ${(bytes / 2 ** 20).toFixed(2)} MiB`)
    .join(", ");
}

/** Neighbouring blocks that are alike share a line. */
function renderBlocks({ blocks }: Facts): string[] {
  const groups: { first: number; last: number; text: string }[] = [];
  for (const [layer, { attention, ffn, parameters }] of blocks.entries()) {
    const left = attention.kind === "gqa" ? `${attention.kvHeads} kv heads` : `attention ${attention.kind}`;
    const right = ffn.kind === "swiglu" ? `SwiGLU ${ffn.width}` : `feed-forward ${ffn.kind}`;
    const text = `${left.padEnd(18)} ${right.padEnd(20)} ${parameters.toLocaleString("en-US")} parameters`;
    const before = groups.at(-1);
    if (before?.text === text) before.last = layer;
    else groups.push({ first: layer, last: layer, text });
  }
  return groups.map(({ first, last, text }) => {
    const each = last > first ? " each" : "";
    return `${(first === last ? `block ${first}` : `blocks ${first}-${last}`).padEnd(12)} ${text}${each}`;
  });
}

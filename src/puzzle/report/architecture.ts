import { type BlockConfig, blockParameters, type ModelConfig } from "../../models/config.js";
import { escapeText, type Markup, raw } from "../../report/index.js";

interface Bar {
  /** Share of the parent's part in the same layer. */
  share: number;
  label: string;
  title: string;
  kind: "kept" | "less" | "linear" | "none";
}

/**
 * The child, layer by layer: attention and feed-forward beside each other as shares of the parent's, whose outline
 * stands behind. After the figure of NVIDIA's article on Llama-3.1-Nemotron-51B.
 */
export function drawArchitecture(
  parent: readonly BlockConfig[],
  child: readonly BlockConfig[],
  config?: ModelConfig,
): Markup {
  const layers = child.length;
  const labelled = layers <= 16;
  const slot = labelled ? Math.max(58, Math.min(180, 900 / layers)) : Math.max(11, 890 / layers);
  const [left, top, height, bottom] = [48, labelled ? 26 : 12, 190, 44];
  const width = left + slot * layers + 6;
  const bars = child.map((block, layer) => drawLayer(block, parent[layer] ?? block, layer, config));
  const columns = bars.map(([attention, ffn], layer) => {
    const x = left + layer * slot;
    const gap = labelled ? 5 : Math.max(1, slot * 0.09);
    const bar = (slot - 3 * gap) / 2;
    return [
      drawBar(attention, { x: x + gap, y: top, width: bar, height, color: "attention", labelled }),
      drawBar(ffn, { x: x + 2 * gap + bar, y: top, width: bar, height, color: "ffn", labelled }),
    ].join("");
  });
  const every = labelled ? 1 : layers > 60 ? 10 : 5;
  const numbers = child.flatMap((_, layer) =>
    layer % every === 0 || layer === layers - 1
      ? [text(left + (layer + 0.5) * slot, top + height + 18, String(layer), "middle", 12)]
      : [],
  );
  const body = [
    hatch(),
    ...[0, 0.25, 0.5, 0.75, 1].map((share) => rule(share, { left, width, top, height })),
    ...columns,
    ...numbers,
    text(left + (slot * layers) / 2, top + height + bottom - 6, "layer", "middle", 12),
  ].join("");
  const alt = `Architecture of the child, layer by layer. ${bars.map(([a, f]) => `${a.title}; ${f.title}`).join(". ")}.`;
  return raw(
    `<svg role="img" aria-label="${escapeText(alt)}" width="${round(width)}" height="${top + height + bottom}" viewBox="0 0 ${round(width)} ${top + height + bottom}">${body}</svg>`,
  );
}

function drawLayer(child: BlockConfig, parent: BlockConfig, layer: number, config?: ModelConfig): [Bar, Bar] {
  return [
    {
      ...attentionText(child, parent),
      share: attentionShare(child, parent, config),
      title: `Layer ${layer}, attention: ${attentionText(child, parent).title}`,
    },
    {
      ...ffnText(child, parent),
      share: ffnShare(child, parent, config),
      title: `Layer ${layer}, feed-forward: ${ffnText(child, parent).title}`,
    },
  ];
}

function attentionText({ attention }: BlockConfig, parent: BlockConfig): Omit<Bar, "share"> {
  if (attention.kind === "none") return { kind: "none", label: "none", title: "removed" };
  if (attention.kind === "linear") return { kind: "linear", label: "linear", title: "one linear map" };
  const of = parent.attention.kind === "gqa" ? parent.attention.kvHeads : attention.kvHeads;
  return {
    kind: attention.kvHeads === of ? "kept" : "less",
    label: `${attention.kvHeads} kv`,
    title: `${attention.kvHeads} of ${of} key-value heads`,
  };
}

function ffnText({ ffn }: BlockConfig, parent: BlockConfig): Omit<Bar, "share"> {
  if (ffn.kind === "none") return { kind: "none", label: "none", title: "removed" };
  if (ffn.kind === "linear") return { kind: "linear", label: "linear", title: "one linear map" };
  const of = parent.ffn.kind === "swiglu" ? parent.ffn.width : ffn.width;
  return {
    kind: ffn.width === of ? "kept" : "less",
    label: String(ffn.width),
    title: `width ${ffn.width} of ${of}`,
  };
}

function attentionShare(child: BlockConfig, parent: BlockConfig, config?: ModelConfig): number {
  const part = (block: BlockConfig) => ({ attention: block.attention, ffn: { kind: "none" } as const });
  if (config) return blockParameters(config, part(child)) / Math.max(1, blockParameters(config, part(parent)));
  if (child.attention.kind !== "gqa" || parent.attention.kind !== "gqa")
    return child.attention.kind === "none" ? 0 : 0.25;
  return child.attention.kvHeads / parent.attention.kvHeads;
}

function ffnShare(child: BlockConfig, parent: BlockConfig, config?: ModelConfig): number {
  const part = (block: BlockConfig) => ({ attention: { kind: "none" } as const, ffn: block.ffn });
  if (config) return blockParameters(config, part(child)) / Math.max(1, blockParameters(config, part(parent)));
  if (child.ffn.kind !== "swiglu" || parent.ffn.kind !== "swiglu") return child.ffn.kind === "none" ? 0 : 0.1;
  return child.ffn.width / parent.ffn.width;
}

interface Place {
  x: number;
  y: number;
  width: number;
  height: number;
  color: "attention" | "ffn";
  labelled: boolean;
}

function drawBar({ share, label, title, kind }: Bar, { x, y, width, height, color, labelled }: Place): string {
  const filled = Math.min(1, share) * height;
  const box = (boxY: number, boxHeight: number, rest: string) =>
    `<rect x="${round(x)}" y="${round(boxY)}" width="${round(width)}" height="${round(boxHeight)}" rx="1.5" ${rest}/>`;
  const outline = box(
    y,
    height,
    `fill="var(--${color}-soft)" stroke="var(--${color})" stroke-width="0.75" stroke-opacity="0.55"${kind === "none" ? ' stroke-dasharray="3 2"' : ""}`,
  );
  const fill = kind === "linear" ? `url(#hatch-${color})` : `var(--${color})`;
  const bar = filled > 0 ? box(y + height - filled, filled, `fill="${fill}"`) : "";
  // Above the parent's outline there is always room; inside, light text on a dark bar would depend on the theme.
  const caption = labelled ? text(x + width / 2, y - 7, label, "middle", 11.5) : "";
  return `<g><title>${escapeText(title)}</title>${outline}${bar}${caption}</g>`;
}

function hatch(): string {
  const pattern = (color: string) =>
    `<pattern id="hatch-${color}" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="5" height="5" fill="var(--${color}-soft)"/><rect width="2.6" height="5" fill="var(--${color})"/></pattern>`;
  return `<defs>${pattern("attention")}${pattern("ffn")}</defs>`;
}

function rule(
  share: number,
  { left, width, top, height }: { left: number; width: number; top: number; height: number },
): string {
  const y = top + height * (1 - share);
  const line = `<line x1="${left}" x2="${round(width)}" y1="${round(y)}" y2="${round(y)}" stroke="var(--grid)"/>`;
  return line + text(left - 8, y + 4, `${100 * share} %`, "end", 11.5);
}

function text(x: number, y: number, content: string, anchor: "middle" | "end", size: number): string {
  return `<text x="${round(x)}" y="${round(y)}" text-anchor="${anchor}" font-size="${size}" fill="currentColor">${escapeText(content)}</text>`;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

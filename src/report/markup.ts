/** Text that is HTML already. */
export interface Markup {
  readonly markup: string;
}

type Part = string | number | Markup | readonly Part[] | undefined | false;

/** Builds HTML; whatever is put in is escaped unless it is markup itself. */
export function html(strings: TemplateStringsArray, ...parts: Part[]): Markup {
  return { markup: strings.reduce((text, string, i) => text + write(parts[i - 1]) + string) };
}

/** Marks a string of our own making as HTML. */
export function raw(markup: string): Markup {
  return { markup };
}

function write(part: Part): string {
  if (part === undefined || part === false) return "";
  if (Array.isArray(part)) return part.map(write).join("");
  if (typeof part === "object") return (part as Markup).markup;
  return escapeText(String(part));
}

export function escapeText(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&#39;");
}

import { html, type Markup, raw } from "./markup.js";
import { style } from "./style.js";

/** A report as one self-contained HTML file: no script, nothing loaded from elsewhere. */
export function renderPage(title: string, sections: readonly (Markup | readonly Markup[])[]): string {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="Espalier">
<title>${title}</title>
<style>${raw(style)}</style>
</head>
<body>
<main>
${sections.flat()}
<footer>Made by Espalier. This page is one file: no script, nothing loaded from elsewhere.</footer>
</main>
</body>
</html>
`.markup;
}

export { escapeText, html, type Markup, raw } from "./markup.js";
export { showCount, showInterval, showNumber, showShare } from "./numbers.js";
export { renderPage } from "./page.js";

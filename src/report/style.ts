/** Style of the report: one column, system fonts, light and dark by the reader's setting. */
export const style = `
:root {
  color-scheme: light dark;
  --page: #fdfdfb; --panel: #ffffff; --ink: #1d2320; --soft: #5d6862; --line: #dfe4e0; --grid: #e8ece9;
  --parent: #6b7671; --child: #1f8a4c; --uniform: #c2540a; --greedy: #7a4fc4; --random: #b08a00; --other: #2b6cb0;
  --attention: #2b6cb0; --ffn: #1f8a4c; --attention-soft: #d9e6f4; --ffn-soft: #d8eee0;
  --heat-0: #eef6f0; --heat-1: #f3d27a; --heat-2: #d9622b; --heat-3: #7d1d3f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #131715; --panel: #1a1f1c; --ink: #e6ebe7; --soft: #9ba8a1; --line: #313a35; --grid: #29312c;
    --parent: #9aa6a0; --child: #4cc27d; --uniform: #f08a4b; --greedy: #b394ee; --random: #dcb93a; --other: #6fa8e6;
    --attention: #6fa8e6; --ffn: #4cc27d; --attention-soft: #22364a; --ffn-soft: #1d3a2a;
    --heat-0: #1f2a24; --heat-1: #8a6d1d; --heat-2: #d9622b; --heat-3: #ff9fb4;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 12px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 48px 0 6px; letter-spacing: -0.005em; }
h3 { font-size: 15px; margin: 20px 0 4px; }
p { margin: 6px 0 12px; max-width: 78ch; }
.lead { font-size: 18px; max-width: 70ch; }
.note, figcaption, caption { color: var(--soft); font-size: 14px; }
figure { margin: 14px 0 8px; }
figcaption { margin-top: 6px; max-width: 82ch; }
.panel { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 16px 18px; overflow-x: auto; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 0 28px; }
svg { display: block; max-width: 100%; height: auto; color: var(--soft); overflow: visible; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
.wide svg { max-width: none; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 15px; }
caption { text-align: left; padding: 0 0 8px; }
th, td { padding: 7px 10px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; vertical-align: top; }
th { font-weight: 600; color: var(--soft); font-size: 13px; }
thead th { white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
tbody th { color: var(--ink); font-size: 15px; text-align: left; }
tr.child th, tr.child td { color: var(--child); font-weight: 600; }
td .sub { display: block; color: var(--soft); font-size: 12.5px; font-weight: 400; }
.text td, .text th { text-align: left; }
.text td:first-child, .text td:last-child { white-space: normal; overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13.5px; color: var(--soft); margin: 0 0 10px; padding: 0; list-style: none; }
.legend svg { display: inline-block; vertical-align: -1px; margin-right: 6px; }
.scale { display: flex; align-items: center; gap: 8px; margin: 0 0 8px; }
.scale span { width: 150px; height: 10px; border-radius: 3px; background: linear-gradient(to right in oklab, var(--heat-0), var(--heat-1), var(--heat-2), var(--heat-3)); }
.samples { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); gap: 14px; }
.samples blockquote { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-family: Georgia, "Iowan Old Style", serif; font-size: 16px; line-height: 1.5; }
.samples .prompt { color: var(--soft); }
.samples h3 { margin: 0 0 6px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 8px 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
pre { margin: 8px 0; white-space: pre-wrap; overflow-wrap: anywhere; }
code, pre { font: 13.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
footer { margin-top: 56px; color: var(--soft); font-size: 13.5px; border-top: 1px solid var(--line); padding-top: 12px; }
@media print { .panel { border: 0; padding: 0; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
`.trim();

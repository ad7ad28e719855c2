export type * from "./data.js";
export { renderReport } from "./page.js";
export { renderSamples, renderTable } from "./table.js";

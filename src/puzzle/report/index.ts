export type * from "./data.js";
export { renderOverview, renderReport } from "./page.js";
export { renderSamples, renderTable } from "./table.js";

export type * from "./data.js";
export { renderReport } from "./page.js";
export { renderTable } from "./table.js";

export type * from "./data.js";

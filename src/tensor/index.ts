export * from "./convert.js";
export * from "./linalg.js";
export * from "./types.js";

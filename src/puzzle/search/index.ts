export { checkLibrary, librarySchema } from "./library.js";
export { checkSearch, parseBound, parseSweep, search } from "./search.js";
export type * from "./types.js";

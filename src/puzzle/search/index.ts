export { checkLibrary, librarySchema } from "./library.js";
export { createPricer, type PricedChoices, type Pricer, type Relaxed } from "./prices.js";
export { checkSearch, parseBound, parseSweep, search } from "./search.js";
export type * from "./types.js";

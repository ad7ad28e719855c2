export { type BudgetOptions, type ChosenTypes, chooseTypes, ladder } from "./budget.js";
export { readImatrix, writeImatrix } from "./imatrix-file.js";
export { overrideOf, predictBytes, quantiseFile } from "./quantise.js";
export { readSequences, type SequenceRequest, type TokenSequences } from "./sequences.js";
export { openSource } from "./source.js";
export type { Compared, Quantised, QuantiseOptions, QuantiseSource, TypeOverride } from "./types.js";

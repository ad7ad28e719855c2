export {
  defaultScenario,
  type MeasureCostsRequest,
  type MeasuredCosts,
  measureCosts,
} from "./block-speeds.js";
export { doubtsOf } from "./block-times.js";
export { type Budget, type CostName, costNames, parseBudget, resolveBudgets } from "./budget.js";
export { locate, locateInputs } from "./bundled.js";
export { type CheckedExport, type CheckedExportOptions, exportChecked } from "./checked-export.js";
export { type DistilBound, parseDistill } from "./distil-box.js";
export { forecast, renderForecast } from "./forecast.js";
export {
  checkRecipe,
  parseRecipe,
  type Recipe,
  type RecipeInput,
  readRecipe,
  readRecipeData,
  recipeJsonSchema,
} from "./recipe.js";
export { type ReshapeOptions, type ReshapeOutcome, reshape } from "./reshape.js";
export {
  type Artifact,
  listStore,
  openStore,
  removeFromStore,
  type StageRequest,
  type Store,
  type StoreContext,
  type StoreEntry,
} from "./store.js";
export { fitMachine, type MachineFit, type MeasuredMachine, measureThisMachine } from "./this-machine.js";
export {
  boundProblems,
  files,
  sampleFields,
  trainingFields,
} from "./training/fields.js";
export { type InspectedSource, type InspectOptions, inspectSamples } from "./training/inspect.js";
export type { Curve, Measure, Method, MethodOutcome, MethodWork, Sample } from "./training/method.js";
export { methods } from "./training/methods.js";
export {
  checkTrainingRecipe,
  type TrainingRecipe,
  trainingRecipeJsonSchema,
} from "./training/recipe.js";
export { runTraining, type TrainingOptions, type TrainingOutcome, type TrainingResult } from "./training/run.js";
export { planTraining, type ReshapePlan, type TrainingPlan } from "./training-plan.js";
export { logitTolerance, type Verified, verifyGguf, verifyHub } from "./verify.js";

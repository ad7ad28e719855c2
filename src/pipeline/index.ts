export { type Budget, type CostName, costNames, parseBudget, resolveBudgets } from "./budget.js";
export { checkRecipe, parseRecipe, type Recipe, type RecipeInput, readRecipe, recipeJsonSchema } from "./recipe.js";
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

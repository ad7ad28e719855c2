// Writes the JSON Schemas that editors and other programs read, from the schemas that the code checks with.
import { writeFileAtomic } from "../src/base/index.js";
import { recipeJsonSchema } from "../src/pipeline/recipe.js";
import { trainingRecipeJsonSchema } from "../src/pipeline/training/recipe.js";
import { costTableJsonSchema } from "../src/plan/index.js";
import { resultJsonSchema } from "../src/puzzle/result.js";

const write = (name: string, schema: unknown) =>
  writeFileAtomic(`schemas/${name}.schema.json`, `${JSON.stringify(schema, null, 2)}\n`);

await write("training-recipe", trainingRecipeJsonSchema());
await write("recipe", recipeJsonSchema());
await write("result", resultJsonSchema());
await write("costs", costTableJsonSchema());

import { z } from "zod";
import { EspalierError } from "./errors.js";

export { z };

/** Checks a value from outside; an error lists every problem with its path. */
export function checkSchema<T extends z.ZodType>(schema: T, value: unknown, where: string): z.output<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const problems = result.error.issues.map(({ path, message }) => `  ${path.join(".") || "(top level)"}: ${message}`);
  const count = problems.length === 1 ? "one problem" : `${problems.length} problems`;
  throw new EspalierError({ where: `${where}: ${count}\n${problems.join("\n")}`, exitCode: 2 });
}

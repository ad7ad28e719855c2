import type { z } from "../../base/index.js";
import type { Method } from "./method.js";
import { sft } from "./sft.js";

type AnyMethod = Method<z.ZodRawShape>;

/** Every method, by the name of its command and of its stage. */
export const methods: Readonly<Record<string, AnyMethod>> = { sft: sft as unknown as AnyMethod };

export function methodOf(name: string): AnyMethod | undefined {
  return methods[name];
}

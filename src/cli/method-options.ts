/** @module Options of a command from the fields of its method: one definition for the command, the recipe and the docs. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { z } from "../base/index.js";
import { collect } from "./options.js";

interface FieldSchema {
  type?: string;
  description?: string;
  default?: unknown;
  enum?: string[];
  items?: FieldSchema;
  anyOf?: FieldSchema[];
}

/** `learningRate` -> `learning-rate`. */
export function flagOf(field: string): string {
  return field.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** Declares an option for every field. Values are left to the schema, which tells all problems at once. */
export function addFieldOptions(command: Command, fields: z.ZodRawShape): Command {
  const { properties, required = [] } = z.toJSONSchema(z.strictObject(fields), {
    io: "input",
    unrepresentable: "any",
  }) as unknown as { properties: Record<string, FieldSchema>; required?: string[] };
  for (const [field, schema] of Object.entries(properties)) {
    command.addOption(optionOf(field, schema, required.includes(field)));
  }
  return command;
}

function optionOf(field: string, schema: FieldSchema, required: boolean): Option {
  const flag = flagOf(field);
  const text = describe(schema);
  if (schema.type === "boolean") {
    return new Option(schema.default === true ? `--no-${flag}` : `--${flag}`, text);
  }
  const option = new Option(`--${flag} <${schema.enum ? "kind" : placeholder(schema)}>`, text);
  if (schema.enum) option.choices(schema.enum);
  else if (isList(schema)) option.argParser(listOf(schema));
  else if (isNumber(schema)) option.argParser(number);
  return option.makeOptionMandatory(required);
}

/** The default is said, and left to the schema to take. */
function describe({ description = "", default: fallback }: FieldSchema): string {
  const sentence = description.charAt(0).toLowerCase() + description.slice(1).replace(/\.$/, "");
  return fallback === undefined || typeof fallback === "boolean" ? sentence : `${sentence} (default: ${fallback})`;
}

function isList(schema: FieldSchema): boolean {
  return schema.type === "array" || (schema.anyOf ?? []).some(({ type }) => type === "array");
}

function listOf(schema: FieldSchema): (value: string, previous?: unknown[]) => unknown[] {
  const items = schema.items ?? schema.anyOf?.find(({ type }) => type === "array")?.items;
  if (items && isNumber(items)) return (value, previous = []) => [...previous, number(value)];
  return (value, previous = []) => collect(value, previous as string[]);
}

function isNumber({ type }: FieldSchema): boolean {
  return type === "number" || type === "integer";
}

function placeholder(schema: FieldSchema): string {
  if (isNumber(schema)) return "n";
  return isList(schema) ? "value" : "text";
}

function number(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value))
    throw new InvalidArgumentError(`Expected a number, found "${text}".`);
  return value;
}

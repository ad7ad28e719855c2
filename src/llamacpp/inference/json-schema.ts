/**
 * @module JSON Schema as a grammar of llama.cpp (GBNF). Members come in the order of the schema; what a grammar cannot hold to is
 * refused by name, never ignored. `oneOf` is taken as `anyOf`, and members that `additionalProperties` allows may repeat a
 * name.
 */
import { EspalierError } from "../../base/index.js";

type Schema = Readonly<Record<string, unknown>>;

const basics = {
  space: '| " " | "\\n" [ \\t]{0,20}',
  char: '[^"\\\\\\x7F\\x00-\\x1F] | "\\\\" (["\\\\bfnrt/] | "u" [0-9a-fA-F]{4})',
  string: '"\\"" char* "\\""',
  digits: "[0-9]{1,15}",
  whole: '"0" | [1-9] [0-9]{0,14}',
  integer: '"-"? whole',
  number: 'integer ("." digits)? ([eE] [-+]? [0-9]{1,3})?',
  boolean: '"true" | "false"',
  null: '"null"',
  member: 'string space ":" space value',
  object: '"{" space (member ("," space member)* space)? "}"',
  array: '"[" space (value ("," space value)* space)? "]"',
  value: "object | array | string | number | boolean | null",
  hex: "[0-9a-fA-F]",
  date: '[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])',
  time: '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,9})? ("Z" | [+-] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])',
} as const;

/** Rules that a text of strings of some formats follows. */
const formats: Readonly<Record<string, string>> = {
  date: '"\\"" date "\\""',
  time: '"\\"" time "\\""',
  "date-time": '"\\"" date "T" time "\\""',
  uuid: '"\\"" hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12} "\\""',
};

/** Says something to people and nothing about values. */
const annotations = new Set(
  "title description default examples $schema $id $comment deprecated readOnly writeOnly $defs definitions".split(" "),
);

/** Keywords that each kind of schema is read with. */
const known = {
  object: ["type", "properties", "required", "additionalProperties"],
  array: ["type", "items", "prefixItems", "minItems", "maxItems"],
  string: ["type", "minLength", "maxLength", "format"],
  integer: ["type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"],
  number: ["type"],
  boolean: ["type"],
  null: ["type"],
} as const;
type Kind = keyof typeof known;

/** Any JSON object, as the JSON mode of servers promises. */
export const jsonGrammar = ["root ::= object", ...ruleLines(basics)].join("\n");

/** @throws EspalierError that names the first part of the schema that a grammar cannot hold to */
export function schemaToGbnf(schema: unknown): string {
  const rules: Record<string, string> = { ...basics };
  const builder = createBuilder(schema, rules);
  rules.root = builder.rule(schema, "#");
  return ruleLines(rules).join("\n");
}

function ruleLines(rules: Readonly<Record<string, string>>): string[] {
  return Object.entries(rules).map(([name, text]) => `${name} ::= ${text}`);
}

function createBuilder(root: unknown, rules: Record<string, string>) {
  const references = new Map<string, string>();
  let count = 0;
  const add = (text: string): string => {
    const name = `r${count++}`;
    rules[name] = text;
    return name;
  };

  /** The text of a rule. */
  const rule = (schema: unknown, at: string): string => {
    if (schema === true) return "value";
    if (!isObject(schema)) throw refused(at, "a schema", JSON.stringify(schema));
    if (schema.$ref !== undefined) return reference(schema, at);
    if (schema.const !== undefined) return only(schema, ["const", "type"], at, () => literals([schema.const]));
    if (schema.enum !== undefined)
      return only(schema, ["enum", "type"], at, () => literals(listOf(schema, "enum", at)));
    for (const key of ["anyOf", "oneOf"] as const) {
      if (schema[key] === undefined) continue;
      return only(schema, [key, "type"], at, () => either(listOf(schema, key, at), `${at}/${key}`));
    }
    if (schema.allOf !== undefined) return rule(merged(schema, at), at);
    return typed(schema, at);
  };

  const either = (schemas: readonly unknown[], at: string) =>
    schemas.map((one, i) => add(rule(one, `${at}/${i}`))).join(" | ");

  const reference = (schema: Schema, at: string): string =>
    only(schema, ["$ref"], at, () => {
      const pointer = String(schema.$ref);
      const name = references.get(pointer);
      if (name !== undefined) return name;
      // Known before it is built: a schema may lead to itself.
      const own = `ref${references.size}`;
      references.set(pointer, own);
      rules[own] = rule(resolvePointer(root, pointer, at), pointer);
      return own;
    });

  const typed = (schema: Schema, at: string): string => {
    const kinds = kindsOf(schema, at);
    if (kinds.length === 0) return only(schema, [], at, () => "value");
    const allowed = kinds.flatMap((kind): readonly string[] => known[kind]);
    return only(schema, allowed, at, () => {
      const [first, ...rest] = kinds.map((kind) => oneKind(kind, schema, at));
      return rest.length === 0 ? first! : [first!, ...rest].map((text) => `(${text})`).join(" | ");
    });
  };

  const oneKind = (kind: Kind, schema: Schema, at: string): string => {
    switch (kind) {
      case "object":
        return object(schema, at);
      case "array":
        return array(schema, at);
      case "string":
        return stringOf(schema, at);
      case "integer":
        return integerOf(schema, at);
      default:
        return kind;
    }
  };

  const object = (schema: Schema, at: string): string => {
    const properties = schema.properties ?? {};
    if (!isObject(properties)) throw refused(`${at}/properties`, "an object of schemas", typeof properties);
    const names = Object.keys(properties);
    const { additionalProperties: more = names.length === 0 } = schema;
    const required = new Set(schema.required === undefined ? [] : listOf(schema, "required", at));
    const unknown = [...required].find((name) => !names.includes(String(name)));
    if (unknown !== undefined && more === false) {
      throw refused(`${at}/required`, "names of properties", JSON.stringify(unknown));
    }
    if (unknown !== undefined) throw refused(`${at}/required`, `a schema for ${JSON.stringify(unknown)}`, "none");
    const extra =
      more === false ? undefined : add(`string space ":" space ${add(rule(more, `${at}/additionalProperties`))}`);
    // From the last member to the first: what may follow when something stands before it, and when nothing does.
    let next = add(extra === undefined ? '""' : `("," space ${extra})*`);
    let first = add(extra === undefined ? '""' : `(${extra} ${next})?`);
    for (const name of names.toReversed()) {
      const value = add(rule(properties[name], `${at}/properties/${name}`));
      const member = add(`${quoted(JSON.stringify(name))} space ":" space ${value}`);
      const optional = !required.has(name);
      const [before, beforeFirst] = [next, first];
      next = add(`"," space ${member} ${before}${optional ? ` | ${before}` : ""}`);
      first = add(`${member} ${before}${optional ? ` | ${beforeFirst}` : ""}`);
    }
    return `"{" space ${first} space "}"`;
  };

  const array = (schema: Schema, at: string): string => {
    const prefix = schema.prefixItems === undefined ? [] : listOf(schema, "prefixItems", at);
    const { items = prefix.length === 0 } = schema;
    const least = countOf(schema, "minItems", at) ?? 0;
    const most = countOf(schema, "maxItems", at) ?? (items === false ? prefix.length : Number.POSITIVE_INFINITY);
    const leading = prefix.map((one, i) => add(rule(one, `${at}/prefixItems/${i}`)));
    const item = items === false ? undefined : add(rule(items, `${at}/items`));
    if (most < least) throw refused(at, `at least ${least} items`, `at most ${most}`);
    return `"[" space ${itemList(leading, item, least, most)} space "]"`;
  };

  /** Items of which the first few have rules of their own. */
  const itemList = (leading: readonly string[], item: string | undefined, least: number, most: number): string => {
    const total = Math.min(leading.length, most);
    const rest = most - total;
    const repeats = `{${Math.max(0, least - total)},${Number.isFinite(rest) ? rest : ""}}`;
    let text = item === undefined || rest === 0 ? '""' : add(`("," space ${item})${repeats}`);
    if (total === 0) {
      if (item === undefined || most === 0) return '""';
      const others = `("," space ${item}){${Math.max(0, least - 1)},${Number.isFinite(most) ? most - 1 : ""}}`;
      return least > 0 ? `${item} ${others}` : `(${item} ${others})?`;
    }
    for (let i = total - 1; i >= 0; i--) {
      const here = `${i > 0 ? '"," space ' : ""}${leading[i]} ${text}`;
      text = add(i < least ? here : `(${here})?`);
    }
    return text;
  };

  return { rule };
}

function kindsOf(schema: Schema, at: string): Kind[] {
  if (schema.type === undefined) {
    if ("properties" in schema || "additionalProperties" in schema) return ["object"];
    return "items" in schema || "prefixItems" in schema ? ["array"] : [];
  }
  const types = [schema.type].flat();
  const bad = types.find((type) => !(String(type) in known));
  if (bad !== undefined || types.length === 0) {
    throw refused(`${at}/type`, `one of ${Object.keys(known).join(", ")}`, JSON.stringify(schema.type));
  }
  return types as Kind[];
}

function stringOf(schema: Schema, at: string): string {
  const [least = 0, most] = [countOf(schema, "minLength", at), countOf(schema, "maxLength", at)];
  if (schema.format !== undefined) {
    const rule = formats[String(schema.format)];
    if (rule === undefined || least > 0 || most !== undefined) {
      const expected = `one of the formats ${Object.keys(formats).join(", ")}, without bounds of the length`;
      throw refused(`${at}/format`, expected, JSON.stringify(schema.format));
    }
    return rule;
  }
  return least === 0 && most === undefined ? "string" : `"\\"" char{${least},${most ?? ""}} "\\""`;
}

/** Bounds that digits alone can express: none, or not below 0 or 1. */
function integerOf(schema: Schema, at: string): string {
  const bound = (key: string) => (schema[key] === undefined ? undefined : Number(schema[key]));
  const above = bound("exclusiveMinimum");
  const least = bound("minimum") ?? (above === undefined ? undefined : Math.floor(above) + 1);
  const below = bound("exclusiveMaximum");
  const most = bound("maximum") ?? (below === undefined ? undefined : Math.ceil(below) - 1);
  return integerRange(least, most, at);
}

/** The largest integer of fifteen digits: what a rule without bounds reaches. */
const largest = 1e15 - 1;

function integerRange(least = -largest, most = largest, at = "#"): string {
  if (!(least <= most)) throw refused(at, "bounds that leave an integer", `${least} to ${most}`);
  if (least <= -largest && most >= largest) return "integer";
  const parts: string[] = [];
  if (least < 0) parts.push(`"-" (${positiveRange(Math.max(1, -Math.min(most, -1)), Math.min(largest, -least))})`);
  if (least <= 0 && most >= 0) parts.push('"0"');
  if (most > 0) parts.push(positiveRange(Math.max(1, least), Math.min(largest, most)));
  return `(${parts.join(" | ")})`;
}

/** Numerals from `low` to `high`, both at least 1: one alternative for each length and each common beginning. */
function positiveRange(low: number, high: number): string {
  const [first, last] = [String(Math.ceil(low)), String(Math.floor(high))];
  const parts: string[] = [];
  for (let length = first.length; length <= last.length; length++) {
    const from = length === first.length ? first : `1${"0".repeat(length - 1)}`;
    const to = length === last.length ? last : "9".repeat(length);
    parts.push(...sameLength(from, to));
  }
  return parts.join(" | ");
}

function sameLength(from: string, to: string): string[] {
  if (from === "") return ['""'];
  const [low, high] = [Number(from[0]), Number(to[0])];
  const [zeros, nines] = ["0".repeat(from.length - 1), "9".repeat(from.length - 1)];
  const digits = (a: number, b: number) => (a === b ? `"${a}"` : `[${a}-${b}]`);
  const rest = from.length - 1;
  const free = rest === 0 ? "" : ` [0-9]{${rest}}`;
  if (from.slice(1) === zeros && to.slice(1) === nines) return [`${digits(low, high)}${free}`];
  if (low === high) return [`"${low}" (${sameLength(from.slice(1), to.slice(1)).join(" | ")})`];
  const parts = [`"${low}" (${sameLength(from.slice(1), nines).join(" | ")})`];
  if (low + 1 <= high - 1) parts.push(`${digits(low + 1, high - 1)}${free}`);
  return [...parts, `"${high}" (${sameLength(zeros, to.slice(1)).join(" | ")})`];
}

/** The parts of an `allOf` as one schema of an object. */
function merged(schema: Schema, at: string): Schema {
  const { allOf: _parts, ...own } = schema;
  const parts = [own, ...listOf(schema, "allOf", at)].filter((part) => !isObject(part) || hasRules(part));
  if (parts.length === 1 && isObject(parts[0])) return parts[0];
  const wrong = parts.find(
    (part) => !isObject(part) || part.$ref !== undefined || (part.type ?? "object") !== "object",
  );
  if (wrong !== undefined)
    throw refused(`${at}/allOf`, "one schema, or objects without references", JSON.stringify(wrong));
  const objects = parts as Schema[];
  return {
    ...Object.assign({}, ...objects),
    type: "object",
    properties: Object.assign({}, ...objects.map((part) => part.properties)),
    required: objects.flatMap((part) => (part.required as unknown[]) ?? []),
  };
}

function hasRules(schema: Schema): boolean {
  return Object.keys(schema).some((key) => !annotations.has(key));
}

function resolvePointer(root: unknown, pointer: string, at: string): unknown {
  if (!pointer.startsWith("#")) throw refused(`${at}/$ref`, "a reference into the schema itself (#/...)", pointer);
  const steps = pointer.split("/").slice(1);
  const found = steps.reduce<unknown>((value, step) => {
    const key = decodeURIComponent(step).replaceAll("~1", "/").replaceAll("~0", "~");
    return isObject(value) || Array.isArray(value) ? (value as Schema)[key] : undefined;
  }, root);
  if (found === undefined) throw refused(`${at}/$ref`, "a reference that leads somewhere", pointer);
  return found;
}

function only<T>(schema: Schema, keys: readonly string[], at: string, build: () => T): T {
  const foreign = Object.keys(schema).find((key) => !keys.includes(key) && !annotations.has(key));
  if (foreign !== undefined) {
    throw refused(
      `${at}/${foreign}`,
      "a keyword that a grammar can hold to",
      `${foreign}: ${JSON.stringify(schema[foreign])}`,
    );
  }
  return build();
}

function listOf(schema: Schema, key: string, at: string): readonly unknown[] {
  const value = schema[key];
  if (Array.isArray(value) && (value.length > 0 || key === "required")) return value;
  throw refused(`${at}/${key}`, "a list", JSON.stringify(value));
}

function countOf(schema: Schema, key: string, at: string): number | undefined {
  const value = schema[key];
  if (value === undefined) return undefined;
  if (typeof value === "number" && Number.isInteger(value) && value >= 0) return value;
  throw refused(`${at}/${key}`, "a whole number", JSON.stringify(value));
}

function literals(values: readonly unknown[]): string {
  return `(${values.map((value) => quoted(JSON.stringify(value))).join(" | ")})`;
}

/** A text as a literal of the grammar. */
function quoted(text: string): string {
  return `"${text.replace(/[\\"]/g, "\\$&").replaceAll("\n", "\\n")}"`;
}

function isObject(value: unknown): value is Schema {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function refused(at: string, expected: string, found: string): EspalierError {
  return new EspalierError({ where: `JSON schema ${at}`, expected, found, exitCode: 2 });
}

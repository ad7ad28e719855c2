/** @module Requests are checked whole: every problem with its path, and a field that nobody knows is refused by name. */
import { z } from "../base/index.js";
import { Refusal } from "./refusal.js";

/** Fields of a request with their values; `null` counts as absent, as clients send it for what they leave out. */
export function parseRequest<T extends z.ZodType>(schema: T, body: unknown): z.output<T> {
  const result = schema.safeParse(withoutNulls(body));
  if (result.success) return result.data;
  const problems = result.error.issues.flatMap(describeIssue);
  const [first] = problems;
  throw new Refusal({
    status: 400,
    where: problems.map(({ message }) => message).join("; "),
    ...(first!.param !== "" && { param: first!.param }),
  });
}

function withoutNulls(body: unknown): unknown {
  if (typeof body !== "object" || body === null || Array.isArray(body)) return body;
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null));
}

function describeIssue(issue: z.core.$ZodIssue): { param: string; message: string }[] {
  const path = issue.path.map(String);
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => {
      const param = [...path, key].join(".");
      return { param, message: `${param}: this field is not supported` };
    });
  }
  const param = path.join(".");
  if (issue.code === "invalid_union" && issue.errors.length > 0) return describeUnion(issue, param);
  const missing = issue.code === "invalid_type" && issue.message.endsWith("received undefined");
  const message = missing ? `is missing (a ${issue.expected})` : issue.message.replace(/^Invalid input: /, "");
  return [{ param, message: `${param || "body"}: ${message}` }];
}

/** The alternative that was followed furthest, or what all of them wanted where none was begun. */
function describeUnion({ path, errors }: z.core.$ZodIssueInvalidUnion, param: string) {
  const nearest = [...errors].sort((a, b) => depth(b) - depth(a))[0]!;
  if (depth(nearest) > 0)
    return nearest.flatMap((inner) => describeIssue({ ...inner, path: [...path, ...inner.path] }));
  const wanted = new Set(
    errors.flat().map(({ message }) => message.replace(/^Invalid (?:input|option): |, received .*$/g, "")),
  );
  return [{ param, message: `${param || "body"}: ${[...wanted].join(", or ")}` }];
}

/** How far an alternative of a union was followed before it failed. */
const depth = (issues: readonly z.core.$ZodIssue[]) =>
  Math.max(0, ...issues.map(({ path, code }) => path.length + (code === "unrecognized_keys" ? 1 : 0)));

/** Accepted and without effect here: they say who asks, or how a hosted service keeps and bills requests. */
export const harmless = z.unknown().optional();

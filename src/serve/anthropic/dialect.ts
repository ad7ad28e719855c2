/** @module Anthropic's error object and events. */
import type { Dialect } from "../http.js";
import type { HttpProblem } from "../refusal.js";

export const anthropicDialect: Dialect = {
  error: errorObject,
  streamError: (problem, id) => anthropicEvent("error", errorObject(problem, id)),
};

const types: Readonly<Record<number, string>> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  408: "timeout_error",
  413: "request_too_large",
  503: "overloaded_error",
  504: "timeout_error",
};

function errorObject({ status, message }: HttpProblem, id: string) {
  const type = types[status] ?? (status < 500 ? "invalid_request_error" : "api_error");
  return { type: "error", error: { type, message }, request_id: id };
}

export function anthropicEvent(event: string, data: object): string {
  return `event: ${event}\ndata: ${JSON.stringify({ type: event, ...data })}\n\n`;
}

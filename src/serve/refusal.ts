/** @module Why a request is not answered: one error with its HTTP status, which each dialect writes in its own words. */
import { EspalierError, messageOf, type Problem } from "../base/index.js";

export interface RefusalProblem extends Problem {
  status: number;
  /** The field of the request that is at fault. */
  param?: string;
  /** Seconds after which the client may ask again. */
  retryAfterSeconds?: number;
}

/** A request that is answered with an error. */
export class Refusal extends EspalierError {
  readonly status: number;
  readonly param: string | undefined;
  readonly retryAfterSeconds: number | undefined;

  constructor(problem: RefusalProblem) {
    super(problem);
    this.status = problem.status;
    this.param = problem.param;
    this.retryAfterSeconds = problem.retryAfterSeconds;
  }
}

/** What a dialect needs to write an error. */
export interface HttpProblem {
  status: number;
  message: string;
  param: string | undefined;
  retryAfterSeconds: number | undefined;
}

/** Own errors keep their status; a request that the engine finds wrong is 400; all else is the server's fault. */
export function httpProblem(error: unknown): HttpProblem {
  const message = messageOf(error);
  if (error instanceof Refusal) {
    const { status, param, retryAfterSeconds } = error;
    return { status, message, param, retryAfterSeconds };
  }
  const status = error instanceof EspalierError && error.exitCode === 2 ? 400 : 500;
  return { status, message, param: undefined, retryAfterSeconds: undefined };
}

/** A field that is known, with a value or beside another field that is not supported. */
export function unsupported(param: string, found: string, fix?: string): Refusal {
  return new Refusal({
    status: 400,
    param,
    where: param,
    found: `${found}, which is not supported`,
    ...(fix && { fix }),
  });
}

export function invalid(param: string, expected: string, found: string, fix?: string): Refusal {
  return new Refusal({ status: 400, param, where: param, expected, found, ...(fix && { fix }) });
}

export interface Problem {
  /** The file, option or field at fault. */
  where: string;
  /** What was wanted there. */
  expected?: string;
  /** What was there instead. */
  found?: string;
  /** What the reader can do about it. */
  fix?: string;
  /** 1: the work failed; 2: the request itself was wrong. Defaults to 1. */
  exitCode?: 1 | 2;
  cause?: unknown;
}

/** An error that a user can act on: where, what was expected, what was found, what to do. */
export class EspalierError extends Error {
  readonly where: string;
  readonly expected: string | undefined;
  readonly found: string | undefined;
  readonly fix: string | undefined;
  readonly exitCode: 1 | 2;

  constructor(problem: Problem) {
    super(describe(problem), { cause: problem.cause });
    this.name = "EspalierError";
    this.where = problem.where;
    this.expected = problem.expected;
    this.found = problem.found;
    this.fix = problem.fix;
    this.exitCode = problem.exitCode ?? 1;
  }
}

function describe({ where, expected, found, fix }: Problem): string {
  const facts = [expected && `expected ${expected}`, found && `found ${found}`].filter(Boolean).join(", ");
  return [facts ? `${where}: ${facts}` : where, fix].filter(Boolean).join("; ");
}

/** Throws for a state that only a bug of our own can bring about. */
export function internal(message: string): never {
  throw new Error(`internal: ${message}`);
}

/** The text of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

export function isNodeError(error: unknown, code: string): boolean {
  return error instanceof Error && (error as NodeJS.ErrnoException).code === code;
}

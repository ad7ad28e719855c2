/** One turn of a conversation. */
export interface Message {
  role: string;
  content: string;
}

export interface Conversation {
  messages: readonly Message[];
}

/** Two answers to one prompt, the first preferred. */
export interface PreferencePair {
  prompt: readonly Message[];
  chosen: string;
  rejected: string;
  /** Scores of both, where a judge gave some. */
  scores?: { chosen: number; rejected: number };
}

/** Judges completions of one prompt; higher is better. Same order and length as `completions`. */
export interface Scorer {
  readonly name: string;
  score(prompt: readonly Message[], completions: readonly string[], signal?: AbortSignal): Promise<number[]>;
}

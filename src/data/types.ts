/** A call of a tool, as chat templates take it. */
export interface MessageToolCall {
  id?: string;
  type: "function";
  function: { name: string /** Parsed JSON; text where it is none. */; arguments: unknown };
}

/** One turn of a conversation; the fields besides role and content are those that chat templates read. */
export interface Message {
  role: string;
  /** Empty beside tool calls. */
  content: string;
  tool_calls?: readonly MessageToolCall[];
  /** Of a tool's answer: the call it answers. */
  tool_call_id?: string;
  /** Of a tool's answer: the tool. */
  name?: string;
  /** False: an assistant turn that is only read (`"weight": 0` in OpenAI's files). Defaults to true. */
  learn?: boolean;
}

export interface Conversation {
  messages: readonly Message[];
  /** Descriptions of the tools, for the template. */
  tools?: readonly unknown[];
  /** Where it came from (`file:line`), for messages. */
  where?: string;
}

/** Two answers to one prompt, the first preferred. */
export interface PreferencePair {
  prompt: readonly Message[];
  chosen: string;
  rejected: string;
  /** Scores of both, where a judge gave some. */
  scores?: { chosen: number; rejected: number };
  /** How much better the chosen one is (HelpSteer2-Preference: 1 slightly, 2, 3 much). */
  strength?: number;
  /** Where it came from (`file:line`), for messages. */
  where?: string;
}

/** One answer with marks for several attributes, as reward models by regression learn them. */
export interface LabelledAnswer {
  prompt: readonly Message[];
  response: string;
  /** One for each attribute asked for, in that order; undefined where nobody marked it (masked in the loss). */
  labels: readonly (number | undefined)[];
  where?: string;
}

/** A condition that a program can check in an answer, as its file has it; `constraintOfInstruction` reads it. */
export interface Instruction {
  /** Such as IFEval's `length_constraints:number_words`. */
  id: string;
  parameters: Readonly<Record<string, unknown>>;
}

/** A prompt whose answers can be judged, for reinforcement learning. */
export interface PromptTask {
  prompt: readonly Message[];
  /** The right answer. */
  answer?: string;
  constraints?: readonly Instruction[];
  /** The row's other fields, for reward functions. */
  fields: Readonly<Record<string, unknown>>;
  where?: string;
}

/** Token ids of one sample, and which of them are to be learnt (1) or only read (0); equal lengths. */
export interface TokenSample {
  ids: Int32Array;
  learn: Uint8Array;
}

/** Several answers to one prompt, which is computed once. Preferences: [chosen, rejected]; rollouts: all answers. */
export interface BranchedSample {
  prompt: Int32Array;
  branches: readonly TokenSample[];
}

/** Judges completions of one prompt; higher is better. Same order and length as `completions`. */
export interface Scorer {
  readonly name: string;
  score(prompt: readonly Message[], completions: readonly string[], signal?: AbortSignal): Promise<number[]>;
}

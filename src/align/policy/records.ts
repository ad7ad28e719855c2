/** @module What is kept of each rollout on disk, so that a run that goes on has its curves, monitors and half-used rollouts. */
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { readJson, writeJsonAtomic } from "../../base/index.js";
import type { AnswerGroup, JudgedPolicyAnswer } from "./rollout.js";

export interface RolloutNumbers {
  /** Mean reward of all answers drawn, those of replaced groups included. */
  reward: number;
  /** Mean of each reward before weights. */
  parts: Record<string, number>;
  /** Mean tokens of an answer. */
  length: number;
  /** Share of answers that did not end. */
  truncated: number;
  /** Share of prompts whose answers have one reward, before any were replaced. */
  alike: number;
  /** Groups that dynamic sampling put in the place of others. */
  replaced: number;
  /** Answers that no reward could judge. */
  unscorable: number;
  /** Share of runs of four tokens that occurred before in their answer. */
  repetition: number;
  /** Mean of k3 over the tokens, nats; where the reference is computed. */
  kl?: number;
  /** Of the policy over the answers that were scored, nats a token. */
  entropy?: number;
}

export interface RolloutRecord {
  rollout: number;
  groups: AnswerGroup[];
  numbers: RolloutNumbers;
  /** Log-probabilities before the first update on it, where there are several updates. */
  old?: Float32Array[];
}

export interface RolloutRecords {
  write(record: RolloutRecord): Promise<void>;
  read(rollout: number): Promise<RolloutRecord>;
  /** Numbers of the rollouts that there are, ascending. */
  list(): Promise<number[]>;
}

/** One file for each rollout; float32 numbers survive JSON exactly. */
export function createRolloutRecords(directory: string): RolloutRecords {
  const pathOf = (rollout: number) => join(directory, `${String(rollout).padStart(6, "0")}.json`);
  return {
    async write({ groups, old, ...rest }) {
      await mkdir(directory, { recursive: true });
      const plain = groups.map(({ task, answers }) => ({
        task,
        answers: answers.map(({ ids, ...answer }) => ({ ...answer, ids: [...ids] })),
      }));
      await writeJsonAtomic(pathOf(rest.rollout), {
        ...rest,
        groups: plain,
        ...(old && { old: old.map((x) => [...x]) }),
      });
    },
    async read(rollout) {
      const { groups, old, ...rest } = (await readJson(pathOf(rollout))) as RolloutRecord;
      return { ...rest, groups: groups.map(withIds), ...(old && { old: old.map((x) => Float32Array.from(x)) }) };
    },
    async list() {
      const names = await readdir(directory).catch(() => []);
      return names
        .flatMap((name) => (/^\d+\.json$/.test(name) ? [Number.parseInt(name, 10)] : []))
        .sort((a, b) => a - b);
    },
  };
}

const withIds = ({ task, answers }: AnswerGroup): AnswerGroup => ({
  task,
  answers: answers.map((answer): JudgedPolicyAnswer => ({ ...answer, ids: Int32Array.from(answer.ids) })),
});

/**
 * @module A number hidden in filler text, and the question for it (the pass key task, arXiv:2305.16300 section 4.2, made anew
 * from a seed). The answer is one branch among others that stand nowhere in the text, so that a model is judged by the
 * log-probabilities of all of them, without generation.
 */
import { createRng, EspalierError, type Rng } from "../base/index.js";
import type { Tokenizer } from "../tokenizer/index.js";
import type { BranchedSample } from "./types.js";
import { documentMark } from "./windows.js";

export interface PasskeyOptions {
  /** Most tokens of a prompt with all its answers; the filler is as long as that allows. */
  length: number;
  /** Questions. The place of the number goes evenly from the beginning to the end of the text. */
  count: number;
  /** Answers to choose among, the right one first. */
  candidates: number;
  seed: number | string;
}

const filler = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. ";
const question = "What is the pass key? The pass key is";

/** @throws EspalierError for a length that does not even hold needle, question and answers */
export function passkeySamples(
  tokenizer: Tokenizer,
  { length, count, candidates, seed }: PasskeyOptions,
): BranchedSample[] {
  const rng = createRng(`${seed}/passkey ${length}`);
  const encode = (text: string) => tokenizer.encode(text, { addSpecial: false, parseSpecial: false });
  const mark = documentMark(tokenizer);
  const unit = encode(filler);
  return Array.from({ length: count }, (_, i) => {
    const keys = drawKeys(rng, candidates);
    const needle = encode(`The pass key is ${keys[0]}. Remember it. ${keys[0]} is the pass key. `);
    const branches = keys.map((key) => encode(` ${key}`));
    const fixed = [...(mark === undefined ? [] : [mark]), ...needle, ...encode(question)].length;
    const room = length - fixed - branches.reduce((sum, ids) => sum + ids.length, 0);
    if (room < 0) throw tooShort(length, length - room);
    const depth = Math.round((room * (i + 0.5)) / count);
    const fill = Array.from({ length: room }, (_, at) => unit[at % unit.length]!);
    const prompt = [
      ...(mark === undefined ? [] : [mark]),
      ...fill.slice(0, depth),
      ...needle,
      ...fill.slice(depth),
      ...encode(question),
    ];
    return {
      prompt: Int32Array.from(prompt),
      branches: branches.map((ids) => ({ ids: Int32Array.from(ids), learn: new Uint8Array(ids.length).fill(1) })),
    };
  });
}

/** Numbers of five digits, all different. */
function drawKeys(rng: Rng, count: number): number[] {
  const keys = new Set<number>();
  while (keys.size < count) keys.add(10_000 + Math.floor(90_000 * rng.next()));
  return [...keys];
}

function tooShort(length: number, needed: number): EspalierError {
  return new EspalierError({
    where: "passkey",
    expected: `at least ${needed} tokens, for the number, the question and the answers`,
    found: `a length of ${length}`,
    fix: "name longer lengths, or fewer candidates",
    exitCode: 2,
  });
}

/**
 * @module Speculative decoding: a smaller model of the same vocabulary proposes tokens, the model itself chooses at every
 * position with its own sampler, and what it chose otherwise is taken back. So the draft changes the speed, never the text.
 *
 * Method: Leviathan, Kalman, Matias, "Fast inference from transformers via speculative decoding", arXiv:2211.17192.
 * Departures: proposals are greedy and stand only if the model's own draw is the same token, which keeps its seed's draws.
 */
import { EspalierError, messageOf } from "../../base/index.js";
import { createSequenceCache, type SequenceCache } from "./cache.js";
import { batchSize, type HeldModel } from "./held-model.js";
import type { Run } from "./run.js";

export interface Drafter {
  /** Proposals for each run: what the smaller model would say after its ids, as far as it is sure. */
  propose(runs: readonly { run: Run; sequence: number }[]): Promise<Map<Run, number[]>>;
}

/** Tokens proposed at once, and how sure the smaller model has to be of each. */
const mostProposed = 8;
const leastProbability = 0.5;

export function createDrafter(target: HeldModel, draft: HeldModel): Drafter {
  checkPair(target, draft);
  const { ctx } = draft;
  const greedy = Array.from({ length: target.sequences }, () => draft.createSampler({ temperature: 0 }));
  // Proposals of all sequences have to fit in one batch with the tokens that they follow.
  const most = Math.min(mostProposed, Math.floor(batchSize / target.sequences) - 1);
  const caches = greedy.map((_, sequence) => createSequenceCache(ctx, sequence));

  /** Evaluates what a sequence lacks of its ids, all but the last token. */
  const catchUp = async (cache: SequenceCache, ids: readonly number[]) => {
    cache.cut(Math.min(cache.common(ids), ids.length - 1));
    while (cache.ids.length < ids.length - 1) {
      const piece = ids.slice(cache.ids.length, Math.min(ids.length - 1, cache.ids.length + batchSize));
      ctx.initBatch(piece.length);
      ctx.addToBatch(cache.sequence, cache.ids.length, Uint32Array.from(piece), new Uint32Array(0));
      await ctx.decodeBatch();
      cache.append(piece);
    }
  };
  /** One more token for each sequence, where the smaller model is sure of one. */
  const step = async (open: readonly { cache: SequenceCache; last: number }[]): Promise<(number | undefined)[]> => {
    ctx.initBatch(open.length);
    const rows = open.map(({ cache, last }) => {
      const [row] = ctx.addToBatch(cache.sequence, cache.ids.length, Uint32Array.of(last), Uint32Array.of(0));
      return row!;
    });
    await ctx.decodeBatch();
    for (const { cache, last } of open) cache.append([last]);
    return Promise.all(
      rows.map(async (row, i) => {
        const [id, , , , weight = Number.POSITIVE_INFINITY] = await ctx.sampleToken(
          row,
          greedy[open[i]!.cache.sequence],
          false,
          false,
          false,
          true,
        );
        // The weight is relative to the likeliest token, which is the one chosen.
        return 1 / weight >= leastProbability ? id : undefined;
      }),
    );
  };

  return {
    async propose(runs) {
      const proposals = new Map(runs.map(({ run }) => [run, [] as number[]]));
      for (const { run, sequence } of runs) await catchUp(caches[sequence]!, run.ids);
      // The model itself adds a token to the proposals.
      let open = runs.filter(({ run }) => run.room() > 1);
      for (let count = 0; count < most && open.length > 0; count++) {
        const lasts = open.map(({ run, sequence }) => ({
          cache: caches[sequence]!,
          last: proposals.get(run)!.at(-1) ?? run.ids.at(-1)!,
        }));
        const next = await step(lasts);
        open = open.filter(({ run }, i) => {
          const id = next[i];
          if (id === undefined) return false;
          proposals.get(run)!.push(id);
          return proposals.get(run)!.length < run.room() - 1;
        });
      }
      return proposals;
    },
  };
}

function checkPair(target: HeldModel, draft: HeldModel): void {
  const problem = pairProblem(target, draft);
  if (problem === undefined) return;
  throw new EspalierError({
    where: draft.gguf,
    expected: `a draft for ${target.gguf}: the same vocabulary, plain attention`,
    found: problem,
    exitCode: 2,
  });
}

function pairProblem(target: HeldModel, draft: HeldModel): string | undefined {
  for (const { model, gguf } of [target, draft]) {
    const { isRecurrent, isHybrid, swaSize } = model.fileInsights;
    if (isRecurrent || isHybrid || swaSize) return `${gguf} cannot take tokens back`;
  }
  if (target.vocabSize !== draft.vocabSize) return `${draft.vocabSize} tokens, not ${target.vocabSize}`;
  try {
    target.ctx.ensureDraftContextIsCompatibleForSpeculative(draft.ctx);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

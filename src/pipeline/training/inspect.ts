/** @module What a model would learn from files of conversations: the mask of the first samples, and counts of all. */
import { ignoreEvents } from "../../base/index.js";
import { showMask, type TokenSample } from "../../data/index.js";
import { openModel } from "../../models/index.js";
import { locate } from "../bundled.js";
import { withChatTemplate } from "./chat-template.js";
import { chatToolsOf } from "./common.js";
import { readSources, renderLessons } from "./sft-samples.js";

export interface InspectOptions {
  data: readonly string[];
  /** Read worked questions, as `sft` with `reasoning`. Defaults to false. */
  reasoning?: boolean;
  /** Samples of each file that are shown. Defaults to 2. */
  count?: number;
  /** Of a row; longer samples are counted. Defaults to 256. */
  length?: number;
  /** As in a recipe. Defaults to the model's own. */
  chatTemplate?: string;
  /** Of what is learnt. Defaults to `plain`, between ⟦ and ⟧. */
  style?: "plain" | "ansi";
}

export interface InspectedSource {
  name: string;
  samples: number;
  tokens: number;
  learnt: number;
  longest: number;
  /** Samples longer than `length`. */
  over: number;
  shown: { text: string; tokens: number; learnt: number }[];
}

/** Reads no weights and trains nothing. */
export async function inspectSamples(path: string, options: InspectOptions): Promise<InspectedSource[]> {
  const { data, reasoning = false, count = 2, length = 256, chatTemplate, style = "plain" } = options;
  const model = await withChatTemplate(await openModel(await locate(path)), chatTemplate);
  try {
    const tools = chatToolsOf({ model });
    const paths = await Promise.all(data.map((file) => locate(file)));
    const plan = {
      length: Number.POSITIVE_INFINITY,
      overlong: "refuse",
      stage: "inspect",
      onEvent: ignoreEvents,
    } as const;
    return (await readSources(paths, reasoning)).map(({ name, lessons }) => {
      const samples = renderLessons(tools, lessons, plan).flat();
      const lengths = samples.map(({ ids }) => ids.length);
      return {
        name,
        samples: samples.length,
        tokens: lengths.reduce((sum, tokens) => sum + tokens, 0),
        learnt: samples.reduce((sum, sample) => sum + learntTokens(sample), 0),
        longest: lengths.reduce((most, tokens) => Math.max(most, tokens), 0),
        over: lengths.filter((tokens) => tokens > length).length,
        shown: samples.slice(0, count).map((sample) => ({
          text: showMask(tools.tokenizer, sample, { style }),
          tokens: sample.ids.length,
          learnt: learntTokens(sample),
        })),
      };
    });
  } finally {
    await model.close();
  }
}

function learntTokens({ learn }: TokenSample): number {
  return learn.reduce((sum, wanted) => sum + wanted, 0);
}

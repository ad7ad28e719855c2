/** Perplexity of a model on a text, and how far a damaged copy is from it: KL in nats a token, with its 95 % interval. */
import { createEngine, createRuntime, loadTokenizer, measurePerplexity, openModel } from "espalier";
import { bundledTextPath, readTextFile } from "espalier/data";
import { type BlockConfig, overlayModel } from "espalier/models";

const runtime = await createRuntime();
const parent = await openModel("models/stories260K");
const tokenizer = loadTokenizer(parent.sidecars.tokenizer);
const text = (await readTextFile(bundledTextPath("valid"))).replaceAll("<|endoftext|>", "").slice(0, 20_000);

// A child is a configuration over its parent's weights: here one without the attention of block 2.
const blocks = parent.config.blocks.map((block, layer): BlockConfig => {
  return layer === 2 ? { ...block, attention: { kind: "none" } } : block;
});
const child = overlayModel(parent, { ...parent.config, blocks }, new Map());

const result = await measurePerplexity(createEngine(runtime, child), tokenizer, text, {
  context: 256,
  parent: createEngine(runtime, parent),
});
const { low, high, mean } = result.kl!;
console.log(`${result.tokens} tokens in ${result.windows} windows`);
console.log(`parent              perplexity ${result.parent!.perplexity.toFixed(3)}`);
console.log(`without attention 2 perplexity ${result.perplexity.toFixed(3)}`);
console.log(`KL from the parent  ${mean.toFixed(4)} nats a token [${low.toFixed(4)}, ${high.toFixed(4)}]`);

await parent.close();
await runtime.dispose();

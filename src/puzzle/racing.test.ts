import { readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ignoreEvents, mean } from "../base/index.js";
import { repositoryPath, temporaryDirectory } from "../base/testing.js";
import {
  bundledTextPath,
  createSequences,
  readDocuments,
  type Sequences,
  sequenceAt,
  sliceSequences,
} from "../data/index.js";
import { createEngine, type Engine, scoreSequences } from "../engine/index.js";
import { type Model, modelParameters, openModel } from "../models/index.js";
import { createRuntime, type Runtime } from "../runtime/index.js";
import { loadTokenizer } from "../tokenizer/index.js";
import { compareRows } from "./compare.js";
import {
  buildSpace,
  buildVariants,
  calibrate,
  capture,
  composeLibrary,
  type LayerScores,
  openBlockLibrary,
  openChild,
  parseBlockId,
  readRace,
  readScores,
  realise,
  type Space,
  scoreAssembled,
  scoreBlocks,
  scoreCandidates,
  search,
} from "./index.js";
import { type RaceRequest, raceBlocks } from "./racing.js";

const quiet = { onEvent: ignoreEvents, signal: new AbortController().signal };

let runtime: Runtime;
let parent: Model;
let engine: Engine;
let space: Space;
let scoring: Sequences;
let request: RaceRequest;
let full: LayerScores[];

const shares = [0.6, 0.75];

beforeAll(async () => {
  runtime = await createRuntime({ threads: 1 });
  parent = await openModel(repositoryPath("models/stories260K"));
  engine = createEngine(runtime, parent);
  const tokenizer = loadTokenizer(parent.sidecars.tokenizer!);
  const documents = (await readDocuments(bundledTextPath("train"))).slice(0, 300);
  const all = createSequences(tokenizer, documents, { length: 64, packing: "document", maxCount: 96 });
  scoring = sliceSequences(all, 32, 96);
  space = buildSpace(parent.config, { fewerKvHeads: false, ffnFractions: [1, 0.5, 0.25] });
  const root = temporaryDirectory();
  const text = { sequences: sliceSequences(all, 0, 32), batch: 8 };
  await calibrate({ ...quiet, runtime, engine, space, text, directory: join(root, "statistics") });
  await buildVariants({
    ...quiet,
    runtime,
    parent,
    space,
    statistics: join(root, "statistics"),
    directory: join(root, "library"),
    ranking: "contribution",
  });
  const captured = join(root, "captured");
  await capture({ ...quiet, engine, text: { sequences: scoring, batch: 8 }, directory: captured });
  const total = modelParameters(parent.config);
  const fixed = { params: modelParameters({ ...parent.config, blocks: [] }) };
  request = {
    ...quiet,
    engine,
    space,
    library: openBlockLibrary(join(root, "library"), parent),
    text: { sequences: scoring, batch: 8 },
    captured,
    directory: join(root, "race"),
    joint: false,
    budgets: shares.map((share) => ({ max: { params: share * total }, fixed })),
  };
  await scoreBlocks({ ...request, directory: join(root, "full") });
  full = await readAll(join(root, "full"));
}, 60_000);

afterAll(async () => {
  await parent.close();
  await runtime.dispose();
});

async function readAll(directory: string): Promise<LayerScores[]> {
  return Promise.all(parent.config.blocks.map((_, layer) => readScores(directory, layer)));
}

/** What a search chooses under each budget, halves joined with the same factor. */
async function choicesOf(scores: readonly LayerScores[]): Promise<Record<string, string>[]> {
  const library = composeLibrary(parent.config, space, scores, { pairFactor: 0.76 });
  return Promise.all(request.budgets.map(async (bounds) => (await search(library, bounds)).choice));
}

/** Only halves, as the full scoring has them. */
function withoutPairs(scores: readonly LayerScores[]): LayerScores[] {
  return scores.map((entry, layer) => ({
    ...entry,
    kl: Object.fromEntries(Object.entries(entry.kl).filter(([id]) => id in full[layer]!.kl)),
  }));
}

function filesOf(directory: string): Record<string, string> {
  const files = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return Object.fromEntries(
    files.map((file) => {
      const path = join(file.parentPath, file.name);
      return [path.slice(directory.length), readFileSync(path, "utf8")];
    }),
  );
}

describe("a race on stories260K", () => {
  test("chooses what scoring everything chooses, with less work; pairs are scored as one", async () => {
    const report = await raceBlocks(request);
    const raced = await readAll(request.directory);
    expect(report.rounds.slice(0, 4).map(({ sequences }) => sequences)).toEqual([4, 8, 16, 32]);
    expect(await choicesOf(withoutPairs(raced))).toEqual(await choicesOf(full));
    expect(report.evaluations).toBeLessThan(0.85 * report.fullEvaluations);
    expect(report.fullEvaluations).toBe(64 * (4 * 2 + 5 * 4));
    expect(await readRace(request.directory)).toEqual(report);
    // Every pair that ends up chosen was scored as a pair.
    for (const choice of report.rounds.at(-1)!.choices) {
      for (const [layer, id] of Object.entries(choice)) expect(Object.keys(raced[Number(layer)]!.kl)).toContain(id);
    }
    expect(report.pairs).toBeGreaterThan(0);
  }, 60_000);

  test("values are the full scoring's, of the first sequences", async () => {
    const raced = await readAll(request.directory);
    const counts = raced.flatMap(({ kl }, layer) =>
      Object.entries(kl)
        .filter(([id]) => id in full[layer]!.kl)
        .map(([id, values]) => {
          values.forEach((value, i) => {
            expect(value).toBeCloseTo(full[layer]!.kl[id]![i]!, 5);
          });
          return values.length;
        }),
    );
    expect(Math.min(...counts)).toBeLessThan(64);
    expect(Math.max(...counts)).toBe(64);
  });

  test("cut short anywhere, it ends with the same files", async () => {
    const before = filesOf(request.directory);
    for (const gone of ["race.json", "layer-001.json", "round-1/layer-003.json", "round-2"]) {
      rmSync(join(request.directory, gone), { recursive: true });
    }
    const stop = new AbortController();
    let events = 0;
    const onEvent = () => {
      if (++events === 8) stop.abort();
    };
    await expect(raceBlocks({ ...request, onEvent, signal: stop.signal })).rejects.toThrow();
    await raceBlocks(request);
    expect(filesOf(request.directory)).toEqual(before);
  }, 60_000);

  test("fewer positions: the same for all, no matter how the text is cut; near the whole", async () => {
    const directory = temporaryDirectory();
    const some = { ...request, positions: 16, layers: [2], directory };
    await scoreBlocks(some);
    const { kl, positions } = await readScores(directory, 2);
    expect(positions).toBe(16);
    const other = temporaryDirectory();
    await scoreBlocks({ ...some, text: { sequences: scoring, batch: 5 }, directory: other });
    for (const [id, values] of Object.entries((await readScores(other, 2)).kl)) {
      expect(mean(values)).toBeCloseTo(mean(kl[id]!), 5);
      const whole = mean(full[2]!.kl[id]!);
      if (whole > 0) expect(Math.abs(mean(values) / whole - 1)).toBeLessThan(0.25);
    }
    await expect(scoreBlocks({ ...some, positions: 65, directory: temporaryDirectory() })).rejects.toThrow(
      "a whole number from 1 to the 64 tokens",
    );
  }, 60_000);

  test("whole candidates: one replaced block is its score, several are the realised child; files are kept", async () => {
    const one = parent.config.blocks.with(2, parseBlockId("linear | swiglu 172 (100%)"));
    const [scores, own] = await scoreAssembled(request, [one, parent.config.blocks]);
    scores!.forEach((kl, i) => {
      expect(kl).toBeCloseTo(full[2]!.kl["linear | swiglu 172 (100%)"]![i]!, 5);
    });
    expect(own).toEqual(scores!.map(() => 0));
    const blocks = one.with(4, parseBlockId("none | swiglu 88 (51%)"));
    const directory = temporaryDirectory();
    await realise({ ...request, runtime, blocks, refit: false, directory });
    const child = await openChild(parent, directory);
    const rows = Array.from({ length: 5 }, (_, i) => sequenceAt(scoring, i));
    const expected = await scoreSequences(createEngine(runtime, child), rows, { reference: engine });
    await child.close();
    const candidates = { ...request, range: { start: 0, count: 5 }, directory: temporaryDirectory() };
    const [kl] = await scoreCandidates(candidates, [blocks]);
    kl!.forEach((value, i) => {
      expect(value).toBeCloseTo(expected[i]!.kl!, 5);
    });
    const broken = { ...candidates, captured: "nowhere" };
    expect(await scoreCandidates(broken, [blocks])).toEqual([kl]);
    // Candidates of one beginning, that part at layers 2 and 4, in company and from the middle of the text.
    const others = [
      blocks,
      one,
      blocks.with(4, parseBlockId("none | linear")),
      parent.config.blocks.with(4, blocks[4]!),
    ];
    const range = { start: 3, count: 7 };
    const together = await scoreAssembled({ ...request, range }, others);
    for (const [i, other] of others.entries()) {
      const [alone] = await scoreAssembled(request, [other]);
      together[i]!.forEach((value, at) => {
        expect(value).toBeCloseTo(alone![range.start + at]!, 5);
      });
    }
  }, 60_000);

  test("all positions at once are what the engine says of each sequence", async () => {
    const ids = [0, 1].map((i) => scoring.ids.slice(i * 64, (i + 1) * 64));
    const [x, y] = [await engine.forward(ids), await engine.forward(ids.toReversed())];
    const rows = { x, batch: 2, length: 64 };
    const [kl] = await compareRows(engine, rows, [y], { first: 0, signal: quiet.signal });
    const expected = await engine.klAgainst(x, y, { batch: 2 });
    kl!.forEach((value, i) => {
      expect(value).toBeCloseTo(expected[i]!, 6);
    });
  });
});

import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { EspalierError, temporaryName, writeFileAtomic } from "../src/base/index.js";
import { repositoryPath, temporaryDirectory } from "../src/base/testing.js";
import { openModel, writeGguf } from "../src/models/index.js";
import { checkRecipe, openStore, type RecipeInput, reshape } from "../src/pipeline/index.js";
import { filesBelow } from "./support/runs.js";

let directory: string;
let parent: string;
const file = (name: string) => join(parent, name);

beforeEach(() => {
  directory = temporaryDirectory();
  parent = join(directory, "parent");
  cpSync(repositoryPath("models/stories260K"), parent, { recursive: true });
});

/** The toy recipe with changes, run in this process; resolves to its error. */
async function failureOf(changes: Partial<RecipeInput>): Promise<EspalierError> {
  const toy = JSON.parse(readFileSync(repositoryPath("recipes/toy.json"), "utf8")) as RecipeInput;
  const place = { parent, out: join(directory, "out") };
  const error = await reshape(checkRecipe({ ...toy, ...place, ...changes }, "recipe"), {
    store: join(directory, "store"),
    threads: 1,
    onEvent: () => {},
  }).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(EspalierError);
  return error as EspalierError;
}

/** Nothing but finished stages and whole files, and no result. */
function expectNothingHalfWritten() {
  const files = filesBelow(directory);
  expect(files.filter((name) => /\.(tmp|lock)$/.test(name))).toEqual([]);
  expect(files.filter((name) => /^out\/.*(gguf|safetensors|report\.html|result\.json)$/.test(name))).toEqual([]);
}

/** Changes a number of the parent's weights: the first of the first tensor's. */
function poison(bytes: readonly number[]) {
  const weights = readFileSync(file("model.safetensors"));
  const header = Number(weights.readBigUInt64LE(0));
  Buffer.from(bytes).copy(weights, 8 + header);
  writeFileSync(file("model.safetensors"), weights);
}

function editConfig(changes: Record<string, unknown>) {
  const config = JSON.parse(readFileSync(file("config.json"), "utf8")) as Record<string, unknown>;
  writeFileSync(file("config.json"), JSON.stringify({ ...config, ...changes }));
}

describe("a parent that cannot be used", () => {
  test("truncated weights", async () => {
    truncateSync(file("model.safetensors"), 600_000);
    const { message, exitCode } = await failureOf({});
    expect([message, exitCode]).toEqual([expect.stringMatching(/model\.safetensors.*truncated/), 1]);
    expectNothingHalfWritten();
  });

  test.each([
    ["NaN", [0, 0, 0xc0, 0x7f]],
    ["Infinity", [0, 0, 0x80, 0x7f]],
  ])("%s among the weights", async (_name, bytes) => {
    poison(bytes);
    const { message, exitCode } = await failureOf({});
    expect([message, exitCode]).toEqual([expect.stringMatching(/model\.\S+.*(NaN|infinite|finite)/i), 1]);
    expectNothingHalfWritten();
  });

  test("a truncated GGUF", async () => {
    const path = join(directory, "parent.gguf");
    const model = await openModel(parent);
    await writeGguf(model, path, { type: "f16" });
    await model.close();
    truncateSync(path, 300_000);
    const { message } = await failureOf({ parent: path });
    expect(message).toMatch(/parent\.gguf.*truncated/);
    expectNothingHalfWritten();
  });

  test("no tokenizer", async () => {
    rmSync(file("tokenizer.json"));
    const { message } = await failureOf({});
    expect(message).toMatch(/parent: expected a tokenizer.*found none; put/);
    expectNothingHalfWritten();
  });

  test("an unsupported architecture", async () => {
    editConfig({ model_type: "mamba", architectures: ["MambaForCausalLM"] });
    const { message } = await failureOf({});
    expect(message).toMatch(/config\.json.*LlamaForCausalLM.*found MambaForCausalLM/);
    expectNothingHalfWritten();
  });

  test("a configuration that the weights do not fit", async () => {
    editConfig({ intermediate_size: 9999 });
    const { message } = await failureOf({});
    expect(message).toMatch(/9999/);
    expectNothingHalfWritten();
  });
});

describe("a request that cannot be met", () => {
  test("a text too short: how much there is and how much it takes", async () => {
    const train = join(directory, "short.txt");
    writeFileSync(train, "Once upon a time there was a very short text.");
    const { message, exitCode } = await failureOf({ text: { train } });
    expect(message).toMatch(
      /short\.txt: expected at least [\d,.K]+ tokens.*found \d+ tokens in 1 documents; name a longer/,
    );
    expect(exitCode).toBe(2);
    expectNothingHalfWritten();
  });

  test("a budget out of reach: the nearest that can be met, which can be asked for as it is said", async () => {
    const { message, exitCode } = await failureOf({ budget: { params: "2%" } });
    const nearest =
      /--budget: .*params 5,201 \(2\.0 % of the parent\); the nearest .*params ([\d,]+) \((\d+\.\d) % of/.exec(message);
    expect([nearest?.length, exitCode]).toEqual([3, 2]);
    expect((Number(nearest![2]) / 100) * 260_032).toBeGreaterThanOrEqual(Number(nearest![1]!.replaceAll(",", "")));
    expectNothingHalfWritten();
    expect(filesBelow(join(directory, "store"))).toEqual([]);
  });

  test("a bound that only a child without whole layers meets is refused, unless that is allowed", async () => {
    const { message, exitCode } = await failureOf({ budget: { params: "17%" } });
    expect([message, exitCode]).toEqual([
      expect.stringMatching(/without leaving whole layers out.*--drop-layers, or ask/),
      2,
    ]);
    expectNothingHalfWritten();
  });

  test("conversations for a parent without a chat template", async () => {
    const train = join(directory, "chats.jsonl");
    writeFileSync(train, '{"messages": [{"role": "user", "content": "Hello"}]}\n');
    const { message, exitCode } = await failureOf({ text: { train } });
    expect([message, exitCode]).toEqual([
      expect.stringMatching(/chats\.jsonl: expected a chat template in .*plain text/),
      2,
    ]);
    expectNothingHalfWritten();
  });

  test("sequences longer than the parent was made for", async () => {
    const { message, exitCode } = await failureOf({ length: 4096 });
    expect([message, exitCode]).toEqual([expect.stringMatching(/at most 512 tokens.*4096/), 2]);
  });

  test("several problems of a recipe at once, with their paths", () => {
    const bad = { kind: "reshape", parent: "", out: "o", budget: { memory: "lots" }, distil: { tokens: -1, extra: 1 } };
    const check = () => checkRecipe(bad, "bad.json");
    for (const part of ["bad.json", "parent", "budget.memory", "distil.tokens", "extra"]) expect(check).toThrow(part);
  });
});

describe("an output that cannot be written", () => {
  test("a directory of someone else is left as it was", async () => {
    mkdirSync(join(directory, "out"));
    writeFileSync(join(directory, "out/thesis.txt"), "years of work");
    const { message, exitCode } = await failureOf({});
    expect([message, exitCode]).toEqual([expect.stringMatching(/thesis\.txt.*choose another --out/), 2]);
    expect(filesBelow(join(directory, "out"))).toEqual(["thesis.txt"]);
  });

  test("a file in the way, of the output and of the store", async () => {
    writeFileSync(join(directory, "out"), "a file");
    expect((await failureOf({})).message).toMatch(/out: found a file where a directory was wanted/);
    rmSync(join(directory, "out"));
    writeFileSync(join(directory, "store"), "a file");
    expect((await failureOf({})).message).toMatch(/store\S*: found a file/);
    expect(readFileSync(join(directory, "store"), "utf8")).toBe("a file");
  });

  // Every write to /dev/full fails as on a full disk.
  describe.skipIf(!existsSync("/dev/full"))("a full disk", () => {
    test("a file is told by name, and nothing is left of it", async () => {
      const path = join(directory, "model.gguf");
      symlinkSync("/dev/full", temporaryName(path));
      const model = await openModel(parent);
      await expect(writeGguf(model, path, { type: "f32" })).rejects.toThrow(
        /model\.gguf: found a full disk; free some/,
      );
      expect(filesBelow(directory).filter((name) => !name.startsWith("parent/"))).toEqual([]);
    });

    test("a stage fails without an artifact, and can be run again", async () => {
      const store = openStore(join(directory, "store"));
      const context = { onEvent: () => {}, signal: new AbortController().signal };
      let full = true;
      const request = {
        stage: "write",
        version: 1,
        options: {},
        inputs: {},
        async run(work: string) {
          const path = join(work, "value.txt");
          if (full) symlinkSync("/dev/full", temporaryName(path));
          await writeFileAtomic(path, "value");
        },
      };
      await expect(store.produce(request, context)).rejects.toThrow("a full disk; free some space");
      expect(filesBelow(join(directory, "store/artifacts"))).toEqual([]);
      full = false;
      expect((await store.produce(request, context)).cached).toBe(false);
    });
  });
});

test.each([
  ["a truncated model", 1, ["show", "PARENT"], /model\.safetensors.*truncated/],
  [
    "a device that is missing",
    2,
    ["perplexity", "models/stories260K", "--text", "README.md", "--device", "dml"],
    /cpu/,
  ],
  ["an unknown budget", 2, ["reshape", "PARENT", "--out", "OUT", "--budget", "speed=2x"], /params.*memory/],
])("the command line says so and exits: %s", (_name, code, args, message) => {
  truncateSync(file("model.safetensors"), 600_000);
  const words = args.map((word) => ({ PARENT: parent, OUT: join(directory, "out") })[word] ?? word);
  const options = { cwd: repositoryPath(""), encoding: "utf8" } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, ["dist/cli/main.js", ...words], options);
  expect([status, stdout, stderr]).toEqual([code, "", expect.stringMatching(message)]);
  expect(stderr).not.toMatch(/\.js:\d+/);
  expect(existsSync(join(directory, "out"))).toBe(false);
});

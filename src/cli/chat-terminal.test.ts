import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { createSpeaker, type Speaker } from "../serve/index.js";
import { createFakeEngine, type FakeOptions } from "../serve/testing.js";
import { runRepl, type Screen, showAnswers } from "./chat-terminal.js";

async function speaker(name: string, fake: FakeOptions): Promise<Speaker> {
  return createSpeaker(name, await createFakeEngine(fake).loadModel(`${name}.gguf`), {});
}

/** What is shown for lines that are typed one after the other. */
async function typed(lines: readonly string[], speakers: readonly Speaker[]): Promise<string> {
  const [input, output] = [new PassThrough(), new PassThrough()];
  input.end(lines.map((line) => `${line}\n`).join(""));
  await runRepl({ input, output, speakers, signal: new AbortController().signal });
  return String(output.read() ?? "");
}

const echo: FakeOptions = { answer: (prompt) => `You said: ${prompt.split("user\n").at(-1)!.split("<|im_end|>")[0]}` };

test("answers, obeys, and says what is wrong, until it is told to end", async () => {
  const shown = await typed(
    [
      "Hi",
      "/set temperature 0.5",
      "/set temperature hot",
      "/history",
      "/nonsense",
      '"""',
      "two",
      'lines"""',
      "/bye",
      "never",
    ],
    [await speaker("fake", echo)],
  );
  expect(shown).toContain("You said: Hi\n");
  expect(shown).toMatch(/\n12 tokens, [\d.]+ tokens\/s, first after 0\.\d\d s\n/);
  expect(shown).toContain(">>> temperature 0.5\n");
  expect(shown).toContain("! /set temperature: expected a number of at least 0, found hot\n");
  expect(shown).toContain("user: Hi\nassistant: You said: Hi\n");
  expect(shown).toContain("! expected a command (/help lists them), found /nonsense\n");
  expect(shown).toContain("You said: two\nlines\n");
  expect(shown).not.toContain("never");
});

test("the end of the input ends it, and a failed answer does not", async () => {
  const shown = await typed(["Hi", "/history"], [await speaker("fake", { crashAfter: () => 1 })]);
  expect(shown).toContain("! fake.gguf: found the end of its process");
  expect(shown).toContain("nothing was said");
});

/** What stands on a screen that was written to; only what `createColumns` uses is understood. */
async function screened(columns: number, isTTY: boolean, speakers: readonly Speaker[]): Promise<string> {
  const written: string[] = [];
  const screen: Screen = { write: (text) => written.push(text), isTTY, columns, rows: 40 };
  await showAnswers(screen, speakers, "Hi", new AbortController().signal);
  return written.join("");
}

test("two stand beside each other where there is room, else one after the other", async () => {
  const pair = async () => [
    await speaker("child", { answer: () => "<think>hm</think>Short." }),
    await speaker("parent", { answer: () => "A longer answer." }),
  ];
  const wide = await screened(100, true, await pair());
  const last = wide.slice(wide.lastIndexOf("\x1b[J") + 3).split("\n");
  expect(last.map((row) => row.replace(/ +\| ?/, "|"))).toEqual([
    "child|parent",
    "|",
    "hm|A longer answer.",
    "---|",
    "Short.|",
    "",
  ]);
  expect(await screened(60, true, await pair())).toBe(
    "child:\n\x1b[2mh\x1b[22m\x1b[2mm\x1b[22m\n\nShort.\n\nparent:\nA longer answer.\n",
  );
  expect(await screened(0, false, await pair())).toBe("child:\nShort.\n\nparent:\nA longer answer.\n");
});

import { parseHTML } from "linkedom";
import { describe, expect, test } from "vitest";
import { html, showInterval, showNumber } from "../../report/index.js";
import type { ReportData } from "./data.js";
import { headline } from "./format.js";
import { renderOverview, renderReport, renderSamples, renderTable } from "./index.js";
import { exampleReport } from "./testing.js";

async function page(data: ReportData): Promise<Document> {
  return parseHTML(await renderReport(data)).document as unknown as Document;
}

type Document = { querySelectorAll(selector: string): Iterable<Element> & { length: number }; toString(): string };
type Element = { textContent: string; getAttribute(name: string): string | null };

const texts = (document: Document, selector: string) =>
  [...document.querySelectorAll(selector)].map(({ textContent }) => textContent.trim());

describe("the page", () => {
  test("is one file: no script, nothing from elsewhere", async () => {
    const text = await renderReport(exampleReport());
    expect(text).not.toMatch(/<script|<link|<img|<iframe|@import/);
    expect(text.replaceAll("http://www.w3.org/", "")).not.toMatch(/https?:|src=|url\((?!#)/);
  });

  test("has every section, and a name for every drawing", async () => {
    const document = await page(exampleReport());
    expect(texts(document, "h2")).toEqual([
      "The child, layer by layer",
      "Frontier",
      "Predicted against real",
      "Divergence against compute",
      "Distillation",
      "Side by side",
      "Search certificate",
      "What each replacement costs",
      "Files",
      "Stages",
      "The same again",
    ]);
    const drawings = [...document.querySelectorAll('svg[role="img"]')];
    expect(drawings.length).toBe(6);
    for (const drawing of drawings) expect(drawing.getAttribute("aria-label")!.length).toBeGreaterThan(20);
  });

  test("shows what was measured", async () => {
    const document = await page(exampleReport());
    const rows = texts(document, "tbody tr").map((row) => row.replace(/\s+/g, " "));
    expect(rows[1]).toBe("child155,90460.0 %647 KiB4.810.4900.1610.150 to 0.1729,5601,612");
    const titles = texts(document, "svg title");
    expect(titles).toContain("Layer 0, feed-forward: width 128 of 172");
    expect(titles.filter((title) => title.startsWith("Layer "))).toHaveLength(10);
    expect(
      titles.some((title) => /^layer 4, gqa 4 \| none: 0\.\d+ \(0\.\d+ to 0\.\d+\) nats a token$/.test(title)),
    ).toBe(true);
  });

  test("keeps text text", async () => {
    const data = exampleReport();
    data.samples![0]!.outputs[1]!.text = "Once upon a time<script>alert(1)</script>";
    expect(await renderReport(data)).toContain("&lt;script&gt;alert(1)&lt;/script&gt;");
    expect(html`<p>${["a<b", html`<i>${"&"}</i>`]}${undefined}</p>`.markup).toBe("<p>a&lt;b<i>&amp;</i></p>");
  });

  test("leaves out what was not measured", async () => {
    const { title, parent, child, evaluation, search, reproduce } = exampleReport();
    const bare: ReportData = {
      title,
      parent,
      child: { name: "child", role: "child", parameters: child.parameters },
      baselines: [],
      evaluation,
      search,
      stages: [],
      peakRssBytes: 1,
      seconds: 1,
      reproduce,
    };
    const document = await page(bare);
    expect(texts(document, "h2")).toEqual(["Search certificate", "Stages", "The same again"]);
    expect(document.toString()).not.toMatch(/undefined|NaN/);
  });

  test("eighty layers and intervals that reach zero draw without a hole", async () => {
    const data = exampleReport(80);
    data.child.kl = { mean: 0.01, low: -0.01, high: 0.03, n: 3 };
    data.baselines[0]!.kl = { mean: 0.02, low: Number.NEGATIVE_INFINITY, high: Number.POSITIVE_INFINITY, n: 1 };
    expect(await renderReport(data)).not.toMatch(/NaN|Infinity|undefined/);
  });
});

test("the terminal table", () => {
  const [head, rule, ...rest] = renderTable(exampleReport()).split("\n");
  expect(head).toBe(
    "                parameters      file  perplexity  KL before   KL, nats/token (95 %)  prefill tok/s  decode tok/s",
  );
  expect(rule).toMatch(/^-+$/);
  expect(rest.slice(0, 3)).toEqual([
    "parent             260,032  1.03 MiB        4.21                                             6,120         1,105",
    "child     155,904 (60.0 %)   647 KiB        4.81      0.490  0.161 (0.150 to 0.172)          9,560         1,612",
    "uniform   148,000 (56.9 %)   617 KiB        4.84      0.657  0.212 (0.200 to 0.224)          9,000         1,400",
  ]);
});

describe("the headline", () => {
  test("says who is nearer to the parent", () => {
    expect(headline(exampleReport())).toBe(
      "The child has 60.0 % of the parent's parameters, diverges from it by 0.161 nats a token, has a perplexity of " +
        "4.81 against 4.21, and decodes 1.46 times as fast in llama.cpp. Its divergence is 14 % below that of the best " +
        "baseline (greedy, 0.188).",
    );
  });

  test("goes by the paired difference where there is one", () => {
    const data = exampleReport();
    data.baselines[1]!.kl = { mean: 0.17, low: 0.12, high: 0.22, n: 32 };
    data.baselines[1]!.klAboveChild = { mean: 0.009, low: 0.004, high: 0.014, n: 32 };
    expect(headline(data)).not.toContain("not told apart");
    data.baselines[1]!.klAboveChild = { mean: 0.009, low: -0.001, high: 0.019, n: 32 };
    expect(headline(data)).toContain("not told apart");
  });

  test("says so when a baseline wins, and when intervals overlap", () => {
    const data = exampleReport();
    data.baselines[1]!.kl = { mean: 0.15, low: 0.14, high: 0.16, n: 32 };
    expect(headline(data)).toContain("7 % above that of the best baseline (greedy, 0.150; not told apart at 95 %)");
  });
});

test("numbers for people", () => {
  expect([0.03417, 4.2132, 123.4, 0, 1234567, 3.1e-7].map((value) => showNumber(value))).toEqual([
    "0.0342",
    "4.21",
    "123",
    "0",
    "1234567",
    "3.10e-7",
  ]);
  expect(showInterval({ mean: 0.5, low: Number.NEGATIVE_INFINITY, high: Number.POSITIVE_INFINITY, n: 1 })).toBe(
    "0.500",
  );
});

test("samples stand side by side, broken between words", () => {
  const text = "Once upon a time there was a little girl who lived in a house near the sea.";
  const data = {
    ...exampleReport(),
    samples: [
      {
        prompt: "Once",
        outputs: [
          { model: "parent", text },
          { model: "child", text: "Once." },
        ],
      },
    ],
  };
  expect(renderSamples(data.samples!).split("\n")).toEqual([
    `${"parent".padEnd(54)}  child`,
    "",
    `${"Once upon a time there was a little girl who lived in".padEnd(54)}  Once.`,
    "a house near the sea.",
  ]);
});

test("the page above several children links to each and has its row, its best baseline and its place", async () => {
  const [small, fast] = [exampleReport(), exampleReport()];
  small.child = { ...small.child, name: "small" };
  fast.child = { ...fast.child, name: "fast", costs: { params: 200_000 } };
  const overview = await renderOverview([small, fast], { title: "two children", samples: small.samples! });
  expect(overview).toContain('<a href="small/report.html">small</a>');
  expect(overview).toContain('<a href="fast/report.html">fast</a>');
  const rows = [...overview.matchAll(/<tr class="[a-z]+"><th scope="row">([^<]*)</g)].map((match) => match[1]);
  expect(rows).toEqual(["parent", "small", "small: greedy", "fast", "fast: greedy"]);
  expect(overview.match(/Frontier: params<\/h2>/g)).toHaveLength(1);
  expect(overview).not.toMatch(/NaN|Infinity|undefined/);
});

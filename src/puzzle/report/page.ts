import type { ReportData } from "./data.js";
import { headline } from "./format.js";

/** The report as one self-contained HTML file: no script, nothing loaded from elsewhere. */
export async function renderReport(data: ReportData): Promise<string> {
  return `<!doctype html><title>${data.title}</title><p>${headline(data)}`;
}

import { EspalierError, formatBytes, freeDiskBytes } from "../base/index.js";
import { forecastDisk } from "../plan/index.js";
import { blockChoices } from "../puzzle/index.js";
import type { RunContext } from "./context.js";
import { workOf } from "./forecast.js";
import { listStore } from "./store.js";

/** Refuses a run whose library and children would not fit on the store's disk, before anything is computed. */
export async function checkDisk(context: RunContext): Promise<void> {
  const { parent, space, store } = context;
  const needed = forecastDisk(parent.config, workOf(context, space.layers.map(blockChoices)));
  const there = (await listStore(store.root)).reduce((sum, { bytes }) => sum + bytes, 0);
  const free = await freeDiskBytes(store.root);
  // What an earlier run left is mostly what this one would write again.
  if (needed - there <= free) return;
  throw new EspalierError({
    where: `the disk of ${store.root}`,
    expected: `about ${formatBytes(needed)} for the block library and the children`,
    found: `${formatBytes(free)} free and ${formatBytes(there)} in the store`,
    fix: "free some, see `espalier clean`, name another disk with --store, or offer fewer variants",
  });
}

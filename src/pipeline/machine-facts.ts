import { readdir, readFile } from "node:fs/promises";
import { arch, cpus, platform, totalmem } from "node:os";
import { join } from "node:path";

/** What measured times depend on, besides threads. */
export interface MachineFacts {
  processor: string;
  memoryBytes: number;
  platform: string;
  /** Bytes of the last level of cache, as the operating system states it; 32 MiB where it does not. */
  cacheBytes: number;
}

const defaultCacheBytes = 32 * 2 ** 20;
/** Files for measuring grow with the cache; above this size a core's own share of it is smaller anyway. */
const mostCacheBytes = 64 * 2 ** 20;

export async function machineFacts(): Promise<MachineFacts> {
  return {
    processor: cpus()[0]?.model.trim() || "unknown",
    memoryBytes: totalmem(),
    platform: `${platform()} ${arch()}`,
    cacheBytes: Math.min(mostCacheBytes, (await statedCacheBytes()) || defaultCacheBytes),
  };
}

/** Linux states caches as `32768K`. */
async function statedCacheBytes(): Promise<number> {
  const directory = "/sys/devices/system/cpu/cpu0/cache";
  const caches = (await readdir(directory).catch(() => [])).filter((name) => name.startsWith("index"));
  const sizes = await Promise.all(
    caches.map(async (name) => {
      const text = await readFile(join(directory, name, "size"), "utf8").catch(() => "");
      const [, amount, unit] = /^(\d+)([KM])/.exec(text) ?? [];
      return Number(amount ?? 0) * (unit === "M" ? 2 ** 20 : 2 ** 10);
    }),
  );
  return Math.max(0, ...sizes);
}

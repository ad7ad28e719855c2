const binary = ["B", "KiB", "MiB", "GiB", "TiB"];

/** 1536 -> "1.5 KiB". */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // Three digits have no room for 1000 to 1023.
  while (value >= 999.5 && unit < binary.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toPrecision(3)} ${binary[unit]}`;
}

/** 134515008 -> "134.5M". */
export function formatCount(count: number): string {
  for (const [size, suffix] of [
    [1e9, "B"],
    [1e6, "M"],
    [1e3, "K"],
  ] as const) {
    if (Math.abs(count) >= size) return `${(count / size).toFixed(1)}${suffix}`;
  }
  return String(count);
}

/** 95 -> "1m 35s". */
export function formatSeconds(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)}s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${whole % 60}s`;
  return `${Math.floor(whole / 3600)}h ${Math.floor((whole % 3600) / 60)}m`;
}

const byteUnits: Readonly<Record<string, number>> = {
  "": 1,
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
  TIB: 2 ** 40,
};

/** "3GB", "1.5 GiB", "1000"; undefined for anything else. */
export function parseBytes(text: string): number | undefined {
  const [, value, unit = ""] = /^(\d+(?:\.\d+)?)\s*([A-Za-z]*)$/.exec(text.trim()) ?? [];
  const scale = byteUnits[unit.toUpperCase()];
  return value === undefined || scale === undefined ? undefined : Math.round(Number(value) * scale);
}

const timeUnits: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** "90s", "1h30m", or seconds alone, in milliseconds; negative with a minus before it; undefined for anything else. */
export function parseDurationMs(text: string): number | undefined {
  const [, minus, rest = ""] = /^(-?)(.+)$/.exec(text.trim()) ?? [];
  const sign = minus === "-" ? -1 : 1;
  if (/^\d+(\.\d+)?$/.test(rest)) return sign * Number(rest) * 1000;
  const parts = [...rest.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)];
  if (parts.length === 0 || parts.map(([whole]) => whole).join("") !== rest) return undefined;
  return sign * parts.reduce((sum, [, value, unit]) => sum + Number(value) * timeUnits[unit!]!, 0);
}

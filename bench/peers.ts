import { execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const repository = fileURLToPath(new URL("../", import.meta.url));

export interface Peers {
  /** Folder of the peers' scripts. */
  folder: string;
  python: string;
}

/**
 * Other software to compare with: a folder `peers` (ESPALIER_PEERS, or in ESPALIER_SHARED, or ../shared) whose
 * `make.sh` prints the path of a Python. A reason where there is none.
 */
export async function findPeers(): Promise<Peers | string> {
  const { ESPALIER_PEERS, ESPALIER_SHARED } = process.env;
  const folder = resolve(ESPALIER_PEERS ?? join(ESPALIER_SHARED ?? join(repository, "../shared"), "peers"));
  const make = join(folder, "make.sh");
  if (!existsSync(make)) return `no ${make}; set ESPALIER_PEERS`;
  try {
    const { stdout } = await promisify(execFile)("bash", [make]);
    return { folder, python: stdout.trim().split("\n").at(-1)! };
  } catch (error) {
    return `${make} failed: ${error instanceof Error ? error.message : error}`;
  }
}

/** The last line that a peer's script prints, parsed as JSON. */
export async function runPeer({ folder, python }: Peers, script: string, args: readonly string[]): Promise<unknown> {
  const child = spawn(python, [join(folder, script), ...args], { stdio: ["ignore", "pipe", "ignore"] });
  let text = "";
  child.stdout.setEncoding("utf8");
  child.stdout.on("data", (chunk: string) => {
    text += chunk;
  });
  const code = await new Promise<number | null>((done) => child.on("close", done));
  if (code !== 0) throw new Error(`${script} ${args.join(" ")} ended with code ${code}`);
  return JSON.parse(text.trim().split("\n").at(-1)!);
}

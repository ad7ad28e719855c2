import { readFile, rm, writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { isNodeError } from "./errors.js";
import { fileError } from "./files.js";

/** Whether a process of this machine is running, ours or another user's. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (cause) {
    return isNodeError(cause, "EPERM");
  }
}

/**
 * Writes a lock with the number of this process; one whose process has died is taken over.
 *
 * @param isOurs whether a lock with our own number is another work of ours (the default), or was left by a process that died
 * @returns how to let go of it, or the number of the process that holds it
 */
export async function claimLock(
  path: string,
  { isOurs = true } = {},
): Promise<{ release: () => Promise<void> } | { owner: number }> {
  for (;;) {
    try {
      await writeFile(path, String(process.pid), { flag: "wx" });
      return { release: () => rm(path, { force: true }) };
    } catch (cause) {
      if (!isNodeError(cause, "EEXIST")) throw fileError(path, cause);
    }
    const owner = await ownerOf(path);
    if (owner > 0 && isAlive(owner) && (isOurs || owner !== process.pid)) return { owner };
    await rm(path, { force: true });
  }
}

/** Between making a file and writing into it another process may look: an empty one gets a second look. */
async function ownerOf(lock: string): Promise<number> {
  const read = async () => Number(await readFile(lock, "utf8").catch(() => ""));
  const owner = await read();
  if (owner > 0) return owner;
  await sleep(50);
  return read();
}

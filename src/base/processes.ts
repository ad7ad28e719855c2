import { isNodeError } from "./errors.js";

/** Whether a process of this machine is running, ours or another user's. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (cause) {
    return isNodeError(cause, "EPERM");
  }
}

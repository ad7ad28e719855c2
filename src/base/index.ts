export { EspalierError, internal, isNodeError, messageOf, type Problem } from "./errors.js";
export { type Event, ignoreEvents, type OnEvent } from "./events.js";
export {
  type AtomicWriter,
  type ByteSource,
  checkFree,
  createAtomicWriter,
  digestJson,
  fileError,
  fileExists,
  freeDiskBytes,
  hashFile,
  memorySource,
  openFile,
  readJson,
  readText,
  sha256,
  temporaryName,
  writeFileAtomic,
  writeJsonAtomic,
} from "./files.js";
export { collectGarbage, createRssMeter, type RssMeter, treeRssBytes } from "./memory.js";
export { claimLock, isAlive } from "./processes.js";
export { createRng, createRngFromState, type Rng, type RngState } from "./rng.js";
export { checkSchema, z } from "./schema.js";
export {
  type Interval,
  mean,
  meanInterval,
  median,
  pairedInterval,
  pairedShareInterval,
  shareInterval,
  studentT975,
} from "./statistics.js";
export { formatBytes, formatCount, formatSeconds, parseBytes, parseDurationMs } from "./units.js";

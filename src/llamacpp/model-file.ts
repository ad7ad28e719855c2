import { EspalierError, fileExists } from "../base/index.js";

/** @throws EspalierError before a process is started for a file that is not there */
export async function checkFile(gguf: string): Promise<void> {
  if (await fileExists(gguf)) return;
  throw new EspalierError({
    where: gguf,
    expected: "a .gguf file",
    found: "nothing of that name",
    fix: "check the path",
    exitCode: 2,
  });
}

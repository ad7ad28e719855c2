/** @module What is planned for: a model on disk, a bare `config.json`, or a name of the catalogue. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { EspalierError, fileExists, openFile, readJson } from "../base/index.js";
import { readGgufHeader } from "../formats/index.js";
import { cachedPath } from "../hub/index.js";
import { canonicalise, ggufExportBytes, type Model, openModel } from "../models/index.js";
import { catalogueNames, findInCatalogue, similarNames } from "./catalogue.js";
import { type FileType, fileTypeBytes, fileTypes, needsImatrix } from "./file-types.js";
import { ggufTensors, type ModelShape, shapeParameters } from "./model-shape.js";
import { shapeFromHub, shapeOf } from "./read-shape.js";

export interface PlannedModel {
  name: string;
  /** Where the shape is from, in words. */
  source: string;
  shape: ModelShape;
  parameters: number;
  /** Bytes of a GGUF file before its first tensor. */
  header: { bytes: number; exact: boolean };
}

/** Opens a directory, a `.gguf` or a `config.json`, or looks up a name. Reads no weights. */
export async function openPlanned(model: string): Promise<PlannedModel> {
  const known = findInCatalogue(model);
  if (known) {
    const { headerBytes: bytes, shape } = known;
    const header = bytes === undefined ? estimateHeader(shape) : { bytes, exact: true };
    return { ...planned(known.name, `the catalogue (${known.repository})`, shape), header };
  }
  const path = await cachedPath(model);
  if (!(await fileExists(path))) throw unknownModel(model);
  const info = await stat(path);
  const config = info.isDirectory() ? join(path, "config.json") : path;
  const bare = config.endsWith(".json") && !(info.isDirectory() && (await hasWeights(path)));
  if (bare) return planned(model, config, shapeFromHub(await readJson(config), config));
  const opened = await openModel(path);
  try {
    const planned = plannedFile(opened);
    return opened.format === "gguf" ? { ...planned, header: { bytes: await headerBytes(path), exact: true } } : planned;
  } finally {
    await opened.close();
  }
}

async function hasWeights(directory: string): Promise<boolean> {
  const names = ["model.safetensors", "model.safetensors.index.json"];
  const found = await Promise.all(names.map((name) => fileExists(join(directory, name))));
  return found.some(Boolean);
}

function unknownModel(model: string): EspalierError {
  const similar = similarNames(model);
  return new EspalierError({
    where: model,
    expected: "a directory, a .gguf file, a config.json, hf:owner/name in the cache or a name of the catalogue",
    found: "neither a path that exists nor a known name",
    fix: similar.length > 0 ? `did you mean ${similar.join(", ")}?` : `names are ${catalogueNames().join(", ")}`,
    exitCode: 2,
  });
}

function planned(name: string, source: string, shape: ModelShape): PlannedModel {
  return { name, source, shape, parameters: shapeParameters(shape), header: estimateHeader(shape) };
}

/** A quantiser copies the metadata of the file that it reads. */
async function headerBytes(path: string): Promise<number> {
  const source = await openFile(path);
  const { tensors } = await readGgufHeader(source).finally(() => source.close());
  return Math.min(...[...tensors.values()].map(({ offset }) => offset));
}

/** As an export packs it: llama.cpp has no attention without a feed-forward, and no block without both. */
function plannedFile(model: Model): PlannedModel {
  const shape = shapeOf(canonicalise(model, "gguf").model.config);
  const exact = model.sidecars.tokenizer !== undefined;
  const header = exact
    ? { bytes: ggufExportBytes(model, "f16") - fileTypeBytes(shape, "F16"), exact }
    : estimateHeader(shape);
  return { ...planned(model.sidecars.name, model.path, shape), parameters: shapeParameters(shape), header };
}

/**
 * Names and sizes of the tensors, and a vocabulary: 61 bytes a token with its merges, as in Llama 3 (7,867,040 bytes for
 * 128,256 tokens and 724 tensors), 23 with scores, as in vocabularies of the SentencePiece kind, which are small.
 */
function estimateHeader(shape: ModelShape): PlannedModel["header"] {
  const perToken = shape.vocabSize < 40_000 ? 23 : 61;
  const bytes = perToken * shape.vocabSize + 60 * ggufTensors(shape).length;
  return { bytes: 32 * Math.round(bytes / 32), exact: false };
}

export interface PlannedSize {
  type: FileType;
  imatrix: boolean;
  tensorBytes: number;
  headerBytes: number;
  bytes: number;
  headerExact: boolean;
}

/** Bytes of the GGUF file in every type, without and with an importance matrix. */
export function plannedSizes({ shape, header }: PlannedModel): PlannedSize[] {
  return fileTypes.flatMap((type) =>
    (needsImatrix.includes(type) ? [true] : [false, true]).map((imatrix) => {
      const tensorBytes = fileTypeBytes(shape, type, { imatrix });
      return {
        type,
        imatrix,
        tensorBytes,
        headerBytes: header.bytes,
        bytes: tensorBytes + header.bytes,
        headerExact: header.exact,
      };
    }),
  );
}

/**
 * @module The table of memory by bits that model pages print, as the page of Nemotron-4-340B does, beside what the shapes
 * say. The page's figures are a round count of parameters times the bits, plus one constant: no model of memory, for the
 * constant is the same at any precision and larger than the key-value cache that the page speaks of.
 */
import { type FileType, fileTypeBytes } from "./file-types.js";
import { kvCacheBytesPerToken } from "./kv-cache.js";
import { type ModelShape, shapeParameters } from "./model-shape.js";

export interface PageRow {
  bits: number;
  /** The page's rule, bytes. */
  pageBytes: number;
  /** Exact: parameters times bits. */
  weightBytes: number;
  kvCacheBytes: number;
  /** The llama.cpp file type of about so many bits, and its tensors, bytes. */
  fileType: FileType;
  fileBytes: number;
}

/** Fitted: what is left of the page's four figures (194.2, 279.2, 342.9 and 682.9 GB) after 340e9 x bits / 8, on average. */
export const pageConstant = 2.925e9;
export const pageContext = 4096;

const rows: readonly { bits: number; fileType: FileType }[] = [
  { bits: 4.5, fileType: "Q4_K_S" },
  { bits: 6.5, fileType: "Q6_K" },
  { bits: 8, fileType: "Q8_0" },
  { bits: 16, fileType: "F16" },
];

/** Parameters are rounded to two digits for the page's rule, as its name of the model does: 341.0e9 is "340B". */
export function modelPage(shape: ModelShape): PageRow[] {
  const parameters = shapeParameters(shape);
  const named = Number(parameters.toPrecision(2));
  const kvCacheBytes = pageContext * kvCacheBytesPerToken(shape);
  return rows.map(({ bits, fileType }) => ({
    bits,
    pageBytes: (named * bits) / 8 + pageConstant,
    weightBytes: (parameters * bits) / 8,
    kvCacheBytes,
    fileType,
    fileBytes: fileTypeBytes(shape, fileType),
  }));
}

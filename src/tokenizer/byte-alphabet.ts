/**
 * The byte alphabet of GPT-2's byte-level BPE: every byte has one printable character. Printable Latin-1 stands for
 * itself, the other 68 bytes take the characters from U+0100 on (so the space is `Ġ`, the line break `Ċ`).
 */
const isPrintable = (byte: number): boolean =>
  (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;

interface ByteAlphabet {
  characters: readonly string[];
  bytes: ReadonlyMap<string, number>;
}

let alphabet: ByteAlphabet | undefined;

function byteAlphabet(): ByteAlphabet {
  if (alphabet) return alphabet;
  let next = 256;
  const characters = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : next++));
  alphabet = { characters, bytes: new Map(characters.map((character, byte) => [character, byte])) };
  return alphabet;
}

/** Text as the alphabet's characters, one for each UTF-8 byte. */
export function encodeBytes(text: string): string {
  const { characters } = byteAlphabet();
  let result = "";
  for (const byte of Buffer.from(text, "utf8")) result += characters[byte]!;
  return result;
}

/** Bytes of a token spelt in the alphabet; undefined when it has other characters. */
export function decodeBytes(token: string): Uint8Array | undefined {
  const { bytes } = byteAlphabet();
  const result = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = bytes.get(token[i]!);
    if (byte === undefined) return undefined;
    result[i] = byte;
  }
  return result;
}

/** `<0x0A>`: how vocabularies with byte fallback spell a byte. */
export function byteToken(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
}

/** The byte that a token such as `<0x0A>` stands for. */
export function byteOfToken(token: string): number | undefined {
  return /^<0x[0-9A-Fa-f]{2}>$/.test(token) ? Number.parseInt(token.slice(3, 5), 16) : undefined;
}

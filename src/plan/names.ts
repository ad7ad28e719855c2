/** @module Names that were probably meant. */

/** The three known names nearest to the one given. */
export function nearestNames(name: string, known: readonly string[]): string[] {
  const wanted = pairsOf(name);
  const ranked = known.map((candidate) => ({ candidate, likeness: likeness(wanted, pairsOf(candidate)) }));
  return ranked
    .sort((a, b) => b.likeness - a.likeness)
    .slice(0, 3)
    .map(({ candidate }) => candidate);
}

/** Dice coefficient of letter pairs: twice those in common over all. */
function likeness(a: ReadonlySet<string>, b: ReadonlySet<string>): number {
  const common = [...a].filter((pair) => b.has(pair)).length;
  return (2 * common) / (a.size + b.size);
}

function pairsOf(name: string): Set<string> {
  const plain = ` ${name.toLowerCase().replace(/[^a-z0-9]/g, "")} `;
  return new Set(Array.from({ length: plain.length - 1 }, (_, i) => plain.slice(i, i + 2)));
}

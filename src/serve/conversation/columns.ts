/** @module Two texts beside each other. */

/** Lines of at most `width` characters, broken at spaces where there are any. */
export function wrapText(text: string, width: number): string[] {
  return text.split("\n").flatMap((line) => {
    const out: string[] = [];
    let rest = [...line];
    while (rest.length > width) {
      const space = rest.lastIndexOf(" ", width);
      const end = space > 0 ? space : width;
      out.push(rest.slice(0, end).join(""));
      rest = rest.slice(space > 0 ? end + 1 : end);
    }
    return [...out, rest.join("")];
  });
}

const gap = " | ";

/** Rows of two columns that fill `width` characters. */
export function besideEachOther(left: string, right: string, width: number): string[] {
  const column = Math.floor((width - gap.length) / 2);
  const [a, b] = [wrapText(left, column), wrapText(right, column)];
  return Array.from({ length: Math.max(a.length, b.length) }, (_, i) => {
    const cell = a[i] ?? "";
    return `${cell}${" ".repeat(column - [...cell].length)}${gap}${b[i] ?? ""}`.trimEnd();
  });
}

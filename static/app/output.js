/**
 * A job's output as it grows: one part for each attempt, the oldest characters going first at the bound. Pure.
 *
 * @typedef {{attempt: number, text: string}} OutputPart
 */

export const MAX_OUTPUT_CHARACTERS = 200_000;

/**
 * @param {OutputPart[]} parts
 * @param {number} attempt
 * @param {unknown} chunk a string, or JSON that becomes a line
 * @returns {{parts: OutputPart[], cut: boolean}} `cut`: something was let go of
 */
export function withChunk(parts, attempt, chunk) {
  const text = typeof chunk === "string" ? chunk : `${JSON.stringify(chunk)}\n`;
  const last = parts.at(-1);
  const grown =
    last?.attempt === attempt
      ? [...parts.slice(0, -1), { attempt, text: last.text + text }]
      : [...parts, { attempt, text }];
  let over = grown.reduce((sum, part) => sum + part.text.length, 0) - MAX_OUTPUT_CHARACTERS;
  if (over <= 0) return { parts: grown, cut: false };
  const kept = grown.flatMap((part) => {
    const lost = Math.max(0, Math.min(over, part.text.length));
    over -= lost;
    return lost === part.text.length ? [] : [{ ...part, text: part.text.slice(lost) }];
  });
  return { parts: kept, cut: true };
}

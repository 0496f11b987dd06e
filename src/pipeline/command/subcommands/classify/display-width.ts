// Measures texts in columns of a terminal, and makes them fit.

import { eastAsianWidth } from 'get-east-asian-width';

const widthOfCharacter = (character: string) =>
  /[\p{M}\p{Cf}]/u.test(character) ? 0 : eastAsianWidth(character.codePointAt(0)!);

/** Returns the columns that a text takes, control characters aside. */
export const displayWidth = (text: string): number =>
  [...text].reduce((sum, character) => sum + widthOfCharacter(character), 0);

/** Counts the characters of the longest beginning of a text that takes at most `columns`. */
function beginning(characters: readonly string[], columns: number): number {
  let taken = 0;
  let count = 0;
  for (const character of characters) {
    taken += widthOfCharacter(character);
    if (taken > columns) break;
    count++;
  }
  return count;
}

/** Cuts a text at its end to at most `columns`. */
export function cutEnd(text: string, columns: number): string {
  if (displayWidth(text) <= columns) return text;
  const characters = [...text];
  return `${characters.slice(0, beginning(characters, columns - 1)).join('')}…`;
}

/** Cuts a text at its beginning to at most `columns`: the name at the end of a path tells most. */
export function cutStart(text: string, columns: number): string {
  if (displayWidth(text) <= columns) return text;
  const characters = [...text];
  const kept = beginning(characters.toReversed(), columns - 1);
  return `…${characters.slice(characters.length - kept).join('')}`;
}

/** Makes a text take exactly `columns`: cuts it, or appends spaces. */
export function fit(text: string, columns: number): string {
  const cut = cutEnd(text, columns);
  return cut + ' '.repeat(Math.max(0, columns - displayWidth(cut)));
}

// How many columns of a terminal a text takes, and texts made to fit.

import { eastAsianWidth } from 'get-east-asian-width';

const widthOfCharacter = (character: string) =>
  /[\p{M}\p{Cf}]/u.test(character) ? 0 : eastAsianWidth(character.codePointAt(0)!);

/** Columns that a text takes, control characters aside. */
export const displayWidth = (text: string): number =>
  [...text].reduce((sum, character) => sum + widthOfCharacter(character), 0);

/** The longest beginning of a text that takes at most `columns`. */
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

/** A text of at most `columns`, cut at its end. */
export function cutEnd(text: string, columns: number): string {
  if (displayWidth(text) <= columns) return text;
  const characters = [...text];
  return `${characters.slice(0, beginning(characters, columns - 1)).join('')}…`;
}

/** A text of at most `columns`, cut at its beginning: of a path the file's name says most. */
export function cutStart(text: string, columns: number): string {
  if (displayWidth(text) <= columns) return text;
  const characters = [...text];
  const kept = beginning(characters.toReversed(), columns - 1);
  return `…${characters.slice(characters.length - kept).join('')}`;
}

/** A text of exactly `columns`: cut, or with spaces after it. */
export function fit(text: string, columns: number): string {
  const cut = cutEnd(text, columns);
  return cut + ' '.repeat(Math.max(0, columns - displayWidth(cut)));
}

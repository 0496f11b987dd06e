// Counts the files in folders and archives that are passed over, because their names are not those of images.

import { extensionOf } from '../../images/extensions.ts';
import { several, short } from './progress.ts';

/** Extensions that are counted one by one; the rest is counted together. */
const MOST_EXTENSIONS = 100;

/** Extensions that are named. */
const NAMED = 5;

/** Counts files by their extensions. `sentence` says how many there were of each; it is '' if there were none. */
export function passedOverFiles() {
  const counts = new Map<string, number>();
  let all = 0;
  return {
    add(path: string) {
      all++;
      const extension = extensionOf(path);
      // What follows the last dot may be anything, and would go to a terminal.
      const plain = extension !== undefined && /^[a-z0-9_-]{1,10}$/.test(extension);
      const kind = plain ? `.${extension}` : '';
      if (kind !== '' && (counts.has(kind) || counts.size < MOST_EXTENSIONS))
        counts.set(kind, (counts.get(kind) ?? 0) + 1);
    },
    sentence() {
      if (all === 0) return '';
      const named = [...counts].sort(([, a], [, b]) => b - a).slice(0, NAMED);
      const rest = all - named.reduce((sum, [, count]) => sum + count, 0);
      const parts = named.map(([kind, count]) => `${kind} ${short(count)}`);
      if (rest > 0) parts.push(`others ${short(rest)}`);
      return `passed over ${several(all, 'file')} without the extension of an image: ${parts.join(', ')}`;
    },
  };
}

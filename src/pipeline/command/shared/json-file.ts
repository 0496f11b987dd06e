// Keeps a JSON file up to date while a run adds to it, so that a run that is ended early loses nothing.

import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { systemPath } from '../../node/system-path.ts';
import { refusing } from './refusing.ts';

/**
 * Returns a function that replaces the contents of a file with a value as JSON. The file holds a whole value at any time,
 * because the new contents are written next to it and renamed. The functions throws `UsageError` if that fails.
 */
export function jsonFile(path: string): (value: unknown) => void {
  const target = systemPath(path);
  const part = systemPath(`${path}.part`);
  const refuse = refusing(`${path}: cannot be written`);
  return (value) => {
    try {
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(part, `${JSON.stringify(value, null, 1)}\n`);
      renameSync(part, target);
    } catch (error) {
      refuse(error);
    }
  };
}

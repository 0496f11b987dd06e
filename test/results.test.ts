// The page of results is the one that its command writes.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { resultsPage } from '../bench/results.ts';

it('docs/results.md is what `npm run bench -- results` writes', () => {
  expect(readFileSync(join(import.meta.dirname, '../docs/results.md'), 'utf8')).toBe(resultsPage());
});

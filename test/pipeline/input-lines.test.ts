// Tests that there is one result per line on standard input, whatever the bytes of the lines, and that no line affects
// another.

import { statSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { bytesOfPath, pathFromBytes } from '../../src/pipeline/escaping.ts';
import { systemPath } from '../../src/pipeline/node/system-path.ts';
import { cli, linesOf } from './captured-cli.ts';
import { fakeFolder } from './fake-folder.ts';
import { greyPng, temporaryFolder, write } from './image-files.ts';

/** Returns whether a line names a folder, which stands for any number of images. */
function isFolder(line: string): boolean {
  try {
    return statSync(systemPath(line)).isDirectory();
  } catch {
    return false;
  }
}

test('n lines give n results', { timeout: 300_000 }, async () => {
  const folder = temporaryFolder();
  write(folder, { 'good.png': greyPng(3), 'bad.png': 'hello', 'empty.png': '' });
  const files = ['good.png', 'bad.png', 'empty.png'].map((name) => Buffer.from(join(folder, name)));
  const noise = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 60 }),
    fc.string({ unit: 'binary', minLength: 1, maxLength: 30 }).map((text) => Buffer.from(text)),
    fc
      .constantFrom('\0', 'a\0b', '=cmd()', '*', '**/*.png', '-', '--help', '\x1b[2J', '\ufeff')
      .map((text) => Buffer.from(text)),
    fc.constantFrom(greyPng(1), Buffer.alloc(70_000, 'x'), Buffer.from('caf\xe9.png', 'latin1')),
  );
  const line = fc
    .oneof(fc.constantFrom(...files), noise)
    .map((bytes) => Buffer.from(bytes.filter((byte) => byte !== 10)));
  const lines = fc.array(line, { minLength: 1, maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(lines, fc.boolean(), fc.boolean(), async (given, crlf, closed) => {
      // A carriage return before the line feed belongs to the end of the line, and empty lines do not count.
      const kept = given
        .map((bytes) => (bytes.at(-1) === 13 ? bytes.subarray(0, -1) : bytes))
        .filter((bytes) => bytes.length > 0 && bytes.at(-1) !== 13)
        .filter((bytes) => !isFolder(pathFromBytes(bytes.subarray(0, 65_536))));
      // A byte order mark at the start belongs to the stream, not to the line.
      const [first] = kept;
      fc.pre(first !== undefined && ![0xef, 0xfe, 0xff].includes(first[0]!));
      const end = Buffer.from(crlf ? '\r\n' : '\n');
      const input = Buffer.concat(
        kept.flatMap((bytes, i) => (closed || i < kept.length - 1 ? [bytes, end] : [bytes])),
      );
      const { status, out } = await cli(
        ['--timesteps', 'even:1', '--order', 'input', '-q', '-'],
        fakeFolder(),
        input,
      );
      const results = linesOf(out);
      expect(results).toHaveLength(kept.length);
      expect(results.map(({ path }) => Buffer.from(bytesOfPath(path)))).toEqual(
        kept.map((bytes) => bytes.subarray(0, 65_536)),
      );
      const good = kept.filter((bytes) => bytes.equals(files[0]!)).length;
      expect(results.filter(({ label }) => label !== undefined)).toHaveLength(good);
      expect(status).toBe(good === kept.length ? 0 : 1);
    }),
    { numRuns: 150 },
  );
});

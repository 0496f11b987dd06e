// The archives of test/golden/single.py, unpacked for a test.

import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { brotliDecompressSync } from 'node:zlib';
import { unpackTar } from 'modern-tar';
import { folderFiles } from '../../src/graph/node/folder-files.ts';
import { shippedPath } from '../../src/graph/node/model-path.ts';
import { clipTokenizerFiles } from '../../src/graph/text/clip-vocabulary.ts';

/** An archive on disk, and what diffusers computed with its model. */
export interface SingleGolden {
  /** Returns the path of a file of the archive. */
  readonly path: (name: string) => string;
  readonly prompts: readonly string[];
  /** The ids of the prompts for each text encoder. */
  readonly ids: readonly (readonly (readonly number[])[])[];
  readonly side: number;
  readonly evaluations: readonly {
    readonly t: number;
    readonly noise: number;
    readonly candidate: number;
    readonly error: number;
  }[];
  readonly remove: () => void;
}

/** Unpacks an archive, and adds the vocabularies that it leaves out. Names in its file list are those of the script and need no checks. */
export async function unpackSingle(name: string): Promise<SingleGolden> {
  const archive = readFileSync(join(import.meta.dirname, '..', 'golden', `single-${name}.tar.br`));
  const folder = await mkdtemp(join(tmpdir(), `single-${name}-`));
  const path = (file: string) => join(folder, file);
  for (const { header, data } of await unpackTar(brotliDecompressSync(archive))) {
    mkdirSync(dirname(path(header.name)), { recursive: true });
    writeFileSync(path(header.name), data ?? new Uint8Array());
  }
  const vocabulary = folderFiles(shippedPath('clip-tokenizer'));
  const virtual = await clipTokenizerFiles(vocabulary, '!', (file) => file);
  for (const tokenizer of ['tokenizer', 'tokenizer_2'])
    for (const file of existsSync(path(`folder/${tokenizer}`)) ? ['vocab.json', 'merges.txt'] : []) {
      const opened = await virtual.get(file)!.open();
      const bytes = new Uint8Array(opened.size);
      await opened.read(0, bytes);
      writeFileSync(path(`folder/${tokenizer}/${file}`), bytes);
    }
  const expected = JSON.parse(readFileSync(path('expected.json'), 'utf8'));
  return { ...expected, path, remove: () => rmSync(folder, { recursive: true }) };
}

// The house keeps its order: pipeline -> graph -> kernels, and each folder leaves alone what it knows nothing of.

import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..');
const rooms = ['kernels', 'graph', 'pipeline'] as const;

const files = (folder: string): string[] =>
  readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)));

const source = (file: string): string => readFileSync(join(root, file), 'utf8');

/** What a file imports, statically or not. */
const imports = (file: string): string[] =>
  [...source(file).matchAll(/(?:from\s+|import\s*\(\s*|import\s+)'([^']+)'/g)].map((match) => match[1]!);

describe('imports flow one way', () => {
  it.each(rooms)('src/%s imports no room above it', (room) => {
    const above = rooms.slice(rooms.indexOf(room) + 1);
    const upward = files(`src/${room}`).flatMap((file) =>
      imports(file)
        .filter((path) => above.some((other) => path.includes(`/${other}/`)))
        .map((path) => `${file} imports ${path}`),
    );
    expect(upward).toEqual([]);
  });

  it('only the pipeline knows rxjs and files of images', () => {
    const strangers = ['rxjs', 'pngjs', 'sharp', 'commander'];
    const found = [...files('src/kernels'), ...files('src/graph')].flatMap((file) =>
      imports(file)
        .filter((path) => strangers.includes(path.split('/')[0]!))
        .map((path) => `${file} imports ${path}`),
    );
    expect(found).toEqual([]);
  });

  it('the pipeline knows neither WGSL nor buffers', () => {
    const found = files('src/pipeline').filter((file) =>
      /@compute|GPUBuffer\b|createBuffer/.test(source(file)),
    );
    expect(found).toEqual([]);
  });

  it('sees the imports it judges', () => {
    expect(imports('src/graph/plan.ts')).toContain('../kernels/device.ts');
  });
});

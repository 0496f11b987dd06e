// Keeps the architecture: what each folder may know, and that imports flow one way.

import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..');

const files = (folder: string): string[] =>
  readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.m?[tj]s$/.test(entry.name))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)));

const source = (file: string): string => readFileSync(join(root, file), 'utf8');

/** Returns what a text imports: statically, dynamically or only as a type. */
const importsOf = (text: string): string[] =>
  [...text.matchAll(/(?:from\s+|import\s*\(\s*|import\s+)'([^']+)'/g)].map((match) => match[1]!);

const imports = (file: string): string[] => importsOf(source(file));

type Imports = ReadonlyMap<string, readonly string[]>;

/** The files of `src`, each with the files of the repository that it imports. */
const importsByFile: Imports = new Map(
  files('src').map((file) => [
    file,
    imports(file)
      .filter((path) => path.startsWith('.'))
      .map((path) => normalize(join(dirname(file), path))),
  ]),
);

/** Returns the sets of files that import each other, directly or through others (Tarjan's algorithm). */
function cyclesOf(graph: Imports): string[][] {
  const index = new Map<string, number>();
  const low = new Map<string, number>();
  const stack: string[] = [];
  const found: string[][] = [];
  const visit = (file: string): void => {
    const own = index.size;
    index.set(file, own);
    low.set(file, own);
    stack.push(file);
    for (const next of graph.get(file) ?? []) {
      if (!index.has(next)) visit(next);
      if (stack.includes(next)) low.set(file, Math.min(low.get(file)!, low.get(next)!));
    }
    if (low.get(file) !== own) return;
    const cycle = stack.splice(stack.indexOf(file));
    if (cycle.length > 1 || graph.get(file)?.includes(file)) found.push(cycle.sort());
  };
  for (const file of graph.keys()) if (!index.has(file)) visit(file);
  return found;
}

/**
 * The places of `src` from the bottom up: folders without their sub-folders, and the files directly in `src` each on
 * its own. A file may import files of its own place and of places further down. As the order is total, folders without
 * an upward import cannot form a cycle.
 */
const PLACES = [
  'src/host-types.ts',
  'src/errors.ts',
  'src/numbers.ts',
  'src/setup-driver.mjs',
  'src/install-driver.mjs',
  'src/kernels/device',
  'src/kernels/elementwise',
  'src/kernels/gemm',
  'src/kernels/conv2d',
  'src/kernels/norm',
  'src/kernels/attention',
  'src/kernels/diffusion',
  'src/graph',
  'src/graph/ops',
  'src/graph/core',
  'src/graph/files',
  'src/graph/networks',
  'src/graph/folders',
  'src/graph/text',
  'src/graph/checkpoints',
  'src/graph/adapters',
  'src/graph/evaluation',
  'src/graph/families',
  'src/graph/families/pixel',
  'src/graph/families/edm',
  'src/graph/families/text',
  'src/graph/families/dit',
  'src/graph/families/optimal',
  'src/graph/models',
  'src/bench',
  'src/graph/node',
  'src/pipeline',
  'src/pipeline/purifying',
  'src/pipeline/deciding',
  'src/pipeline/stream',
  'src/pipeline/images',
  'src/pipeline/operators',
  'src/pipeline/classifying',
  'src/pipeline/attacking',
  'src/pipeline/node',
  'src/pipeline/command/options',
  'src/pipeline/command/shared',
  'src/pipeline/command/subcommands/classify',
  'src/pipeline/command/subcommands/purify',
  'src/pipeline/command/subcommands/evaluate',
  'src/pipeline/command/subcommands/calibrate',
  'src/pipeline/command/subcommands/doctor',
  'src/pipeline/command/subcommands/match',
  'src/pipeline/command/subcommands/bench',
  'src/pipeline/command/subcommands',
  'src/pipeline/command',
  'src/kernels.ts',
  'src/attacks.ts',
  'src/operators.ts',
  'src/index.ts',
];

const placeOf = (file: string): string => (dirname(file) === 'src' ? file : dirname(file));

/** Returns the imports from one place to another that is further up, as `file -> file`, by `place -> place`. */
function upwardImports(): Record<string, string[]> {
  const found: Record<string, string[]> = {};
  for (const [file, imported] of importsByFile)
    for (const other of imported) {
      const [from, to] = [placeOf(file), placeOf(other)];
      if (PLACES.indexOf(to) <= PLACES.indexOf(from)) continue;
      const arrow = `${from} -> ${to}`;
      found[arrow] = [...(found[arrow] ?? []), `${file} -> ${other}`];
    }
  return found;
}

describe('imports flow one way', () => {
  it('no two files of src import each other, directly or through others', () => {
    expect(cyclesOf(importsByFile)).toEqual([]);
  });

  it('every place of src has its rank', () => {
    expect([...new Set([...importsByFile.keys()].map(placeOf))].sort()).toEqual([...PLACES].sort());
  });

  it('every relative import is a file of src', () => {
    const strangers = [...importsByFile].flatMap(([file, imported]) =>
      imported.filter((other) => !importsByFile.has(other)).map((other) => `${file} -> ${other}`),
    );
    expect(strangers).toEqual([]);
  });

  it('no folder imports from one above it', () => {
    expect(upwardImports()).toEqual({});
  });

  it('no subcommand imports another', () => {
    const subcommands = 'src/pipeline/command/subcommands/';
    const nameOf = (file: string) => file.slice(subcommands.length).split(/[/.]/)[0];
    const found = [...importsByFile].flatMap(([file, imported]) =>
      imported
        .filter((other) => [file, other].every((one) => one.startsWith(subcommands)))
        .filter((other) => nameOf(file) !== nameOf(other) && nameOf(file) !== 'list')
        .map((other) => `${file} -> ${other}`),
    );
    expect(found).toEqual([]);
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

  it('only src/graph/node, the pipeline and the index files find the files of a path', () => {
    const found = [...importsByFile]
      .filter(([file]) => /^src\/(graph\/(?!node\/)|kernels\/)/.test(file))
      .flatMap(([file, imported]) => imported.map((other) => `${file} -> ${other}`))
      .filter((arrow) => arrow.includes('-> src/graph/node/'));
    expect(found).toEqual([]);
  });

  it('a library that runs in a browser, too, imports Node only in folders called node', () => {
    const isPortable = (file: string) => !/\/(node|command)\//.test(file);
    const found = [...files('src/graph'), ...files('src/pipeline')]
      .filter(isPortable)
      .filter((file) => /'node:|\bBuffer\b/.test(source(file)));
    expect(found).toEqual([]);
  });

  it('the pipeline knows neither WGSL nor buffers', () => {
    const found = files('src/pipeline').filter((file) =>
      /@compute|GPUBuffer\b|createBuffer/.test(source(file)),
    );
    expect(found).toEqual([]);
  });
});

describe('tests know no clock', () => {
  /** Files that may: they poll what a child process writes, date a file, or measure what --dry-run says of time. */
  const TIMED = [
    'test/house.test.ts',
    'test/package/package.test.ts',
    'test/pipeline/attacking/evaluate.test.ts',
    'test/pipeline/dry-run.gpu.test.ts',
    'test/pipeline/fake-folder.ts',
    'test/pipeline/output-file.test.ts',
    'test/pipeline/process.test.ts',
  ];

  it('they wait for events or turns of the event loop, and count instead of measuring', () => {
    const found = files('test').filter(
      (file) =>
        /setTimeout|performance\.now|Date\.now\(|timers\/promises/.test(source(file)) &&
        !TIMED.includes(file),
    );
    expect(found).toEqual([]);
  });
});

describe('a skipped test says why', () => {
  it('with a call of `skip` in its context that has a reason, because conditions of declarations have none', () => {
    const found = files('test').filter(
      (file) =>
        file !== 'test/house.test.ts' &&
        /\b(skipIf|runIf)\(|\bskip\(\)|\b(it|test|describe)\.(skip|todo)\b/.test(source(file)),
    );
    expect(found).toEqual([]);
  });
});

describe('the checks themselves', () => {
  it('see static, dynamic and type-only imports, and exports from other files', () => {
    const text = [
      "import { a } from './a.ts';",
      "import type { B } from './b.ts';",
      "import './c.ts';",
      "export * from './d.ts';",
      "export type { E } from './e.ts';",
      "const f = await import('./f.ts');",
      "type G = import('./g.ts').G;",
      "import {\n  h,\n  type I,\n} from './h.ts';",
    ].join('\n');
    expect(importsOf(text)).toEqual([...'abcdefgh'].map((name) => `./${name}.ts`));
    expect(imports('src/graph/core/plan.ts')).toContain('../../kernels/device/device.ts');
  });

  it('find cycles of any length, each once', () => {
    const graph = new Map([
      ['a', ['b']],
      ['b', ['c', 'd']],
      ['c', ['a']],
      ['d', ['e']],
      ['e', ['d']],
      ['f', ['a', 'g']],
      ['g', []],
      ['h', ['h']],
    ]);
    expect(cyclesOf(graph).sort()).toEqual([['a', 'b', 'c'], ['d', 'e'], ['h']]);
  });
});

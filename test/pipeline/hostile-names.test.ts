// Tests file names that attack programs which show them: terminal escapes, formulas, tags, newlines, bytes that are not
// UTF-8.

import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import { beforeEach, describe, expect, test } from 'vitest';
import { namedInputs, outputNames, pngName } from '../../src/pipeline/command/shared/output-names.ts';
import { createReporter } from '../../src/pipeline/command/shared/progress.ts';
import { pathFromBytes } from '../../src/pipeline/escaping.ts';
import { findImages } from '../../src/pipeline/node/sources.ts';
import { systemPath } from '../../src/pipeline/node/system-path.ts';
import { isFailure } from '../../src/pipeline/types.ts';
import { cli, linesOf } from './captured-cli.ts';
import { fakeFolder } from './fake-folder.ts';
import { collect } from './fake-model.ts';
import { greyPng, temporaryFolder, write } from './image-files.ts';

const NAMES = [
  '=cmd().png',
  '+1.png',
  '-rf.png',
  '@sum.png',
  '\ttab.png',
  '<img src=x onerror=alert(1)>.png',
  'a\x1b[2J\x1b]0;title\x07.png',
  'line\nfeed.png',
  'carriage\rreturn.png',
  'right\u202egnp.png',
  '\u009b31mC1.png',
  '..png',
  "'=quote.png",
  'a,"b".png',
];

/** Characters that control a terminal or reorder a line. */
const UNSAFE = /[\p{Cc}\u202a-\u202e\u2066-\u2069\ud800-\udfff]/u;

/** Fails if a text contains anything unsafe except line feeds, tabs and the given parts. */
function expectSafe(text: string, ...allowed: readonly string[]): void {
  const rest = ['\n', '\t', ...allowed].reduce((left, part) => left.replaceAll(part, ''), text);
  expect(rest).not.toMatch(UNSAFE);
}

const hostile = () => {
  const folder = temporaryFolder();
  write(
    folder,
    Object.fromEntries(NAMES.filter((name) => !name.startsWith('.')).map((name) => [name, greyPng(3)])),
  );
  write(folder, { 'bad\x1b[31m.png': 'hello' });
  return folder;
};
const COUNT = NAMES.length; // one of them is hidden, and one bad file was added

describe('hostile names', () => {
  beforeEach(({ skip }) => skip(process.platform === 'win32', 'Windows does not accept such names'));

  test('on a terminal, in every format, are safe text in whole lines', async () => {
    const folder = hostile();
    for (const argv of [
      [],
      ['--format', 'jsonl'],
      ['--format', 'csv'],
      ['--output', join(folder, 'r.jsonl')],
    ]) {
      const { out, err } = await cli([folder, ...argv], undefined, '', undefined, {
        isTTY: true,
        columns: 80,
      });
      expectSafe(out);
      // Progress returns to the start of its line and erases it.
      expectSafe(err, '\r', '\x1b[K');
    }
    const { out } = await cli([folder, '-q'], undefined, '', undefined, { isTTY: true, columns: 80 });
    expect(out.trimEnd().split('\n')).toHaveLength(COUNT);
  });

  test('are safe in messages about an option, a model, a missing output folder', async () => {
    for (const argv of [
      ['--\x1b[31m', 'x'],
      ['--model', '\x1b[31m/x', 'x'],
      ['-o', 'no\x1b[31m/x', 'x'],
      ['--labels', 'a\x1b[31m,b', 'x'],
    ]) {
      const { status, err } = await cli(argv, fakeFolder());
      expect(status).toBeGreaterThan(0);
      expectSafe(err);
    }
  });

  test('are not formulas in CSV, and the run can be resumed', async () => {
    const folder = hostile();
    const output = join(folder, 'r.csv');
    const argv = [folder, '-q', '--output', output, '--resume'];
    await cli(argv);
    const rows = parse(readFileSync(output, 'utf8')) as string[][];
    expect(rows).toHaveLength(COUNT + 1);
    for (const cell of rows.flat()) expect(cell).not.toMatch(/^[=+@\t\r]/);
    const before = readFileSync(output, 'utf8');
    const { err } = await cli(argv.filter((arg) => arg !== '-q'));
    expect(err).toContain(`${COUNT - 1} done before`);
    expect(readFileSync(output, 'utf8').split('\n').sort()).toEqual(before.split('\n').sort());
  });

  test('that are relative and start with a sign are not formulas', async () => {
    const folder = hostile();
    const { out } = await cli([
      ...NAMES.filter((name) => /^[=+@]/.test(name)).map((name) => join(folder, name)),
      '-q',
      '--format',
      'csv',
    ]);
    expect(out.split('\n').filter(Boolean)).toHaveLength(4);
  });

  test('give new images different names in --out, without control characters', () => {
    const nameOf = outputNames();
    const names = [
      '/in/../../etc/x.png',
      ...NAMES.map((name) => `/in/${name}`),
      '/in/a\x1b.png',
      '/in/a\x07.png',
    ].map((path) => nameOf(path, '/in'));
    for (const name of names) {
      expect(name).not.toMatch(UNSAFE);
      expect(name).not.toMatch(/[<>\n]|(^|\/)\.\.(\/|$)/);
    }
    expect(new Set(names.map(pngName)).size).toBe(names.length);
  });

  test('keep one line per message in a log', () => {
    const texts: string[] = [];
    const reporter = createReporter({ write: (text) => texts.push(text) }, 'info');
    reporter.log('warn', 'a\nb\x1b[2J');
    expect(texts).toEqual(['diffclass-stream: a\\x0Ab\\x1B[2J\n']);
  });
});

describe('names that are not UTF-8', () => {
  beforeEach(({ skip }) => skip(process.platform !== 'linux', 'only Linux accepts names that are not UTF-8'));

  const latin1 = (text: string) => Buffer.from(text, 'latin1');
  const made = () => {
    const folder = temporaryFolder();
    mkdirSync(Buffer.concat([latin1(`${folder}/p\xe9`)]));
    writeFileSync(latin1(`${folder}/p\xe9/caf\xe9.png`), greyPng(3));
    writeFileSync(latin1(`${folder}/caf\xe8.png`), greyPng(4));
    return folder;
  };

  test('are found in folders, by patterns, as inputs and on standard input, and classified', async () => {
    const folder = made();
    const deep = pathFromBytes(latin1(`${folder}/p\xe9/caf\xe9.png`));
    const flat = pathFromBytes(latin1(`${folder}/caf\xe8.png`));
    for (const [inputs, paths] of [
      [[folder], [flat, deep]],
      [[join(folder, '*', '*.png')], [deep]],
      [[join(folder, 'caf?.png')], [flat]],
      [
        [deep, flat],
        [deep, flat],
      ],
    ] as const) {
      expect(await collect(findImages(inputs))).toEqual(paths);
      const { status, out } = await cli([...inputs, '-q', '--order', 'input']);
      expect([status, linesOf(out).map(({ path }) => path)]).toEqual([0, paths]);
    }
    const list = Buffer.concat([latin1(`${folder}/caf\xe8.png\n${folder}/p\xe9\n`)]);
    const { status, out } = await cli(['-', '-q', '--order', 'input'], undefined, list);
    expect([status, linesOf(out).map(({ label }) => label)]).toEqual([0, ['elk', 'dog']]);
  });

  test.each(['jsonl', 'csv'])('%s: are recognised and distinguished by --resume', async (format) => {
    const folder = made();
    const output = join(folder, `r.${format}`);
    const argv = [folder, '--output', output, '--resume'];
    expect((await cli(argv)).status).toBe(0);
    writeFileSync(latin1(`${folder}/caf\xea.png`), greyPng(5));
    const { err } = await cli(argv);
    expect(err).toMatch(/1 image classified.*2 done before/);
    const text = readFileSync(output, 'utf8');
    expect(text).toContain(format === 'csv' ? 'caf\\xE8.png' : 'caf\\udce8.png');
  });

  test('give written images names in UTF-8', async () => {
    const folder = made();
    const items = await collect(
      namedInputs(
        { inputs: [folder], nul: false, out: join(folder, 'out') },
        { stdin: (async function* () {})(), reporter: createReporter({ write: () => 0 }, 'silent') },
      ),
    );
    expect(items.map((item) => !isFailure(item) && item.name)).toEqual(['caf_.png', 'p_/caf_.png']);
  });

  test('can be arguments of the real program', () => {
    const folder = made();
    // A shell that has the bytes: Node cannot pass arguments that are not UTF-8.
    const program = `${JSON.stringify(process.execPath)} --import tsx test/pipeline/fake-cli.ts 0 --model ./fake -q ${folder}/caf?.png ${folder}/*/caf*`;
    const out = execFileSync('bash', ['-c', program], { encoding: 'utf8' });
    expect(
      linesOf(out)
        .map(({ label }) => label)
        .sort(),
    ).toEqual(['dog', 'elk']);
    expect(out).toContain('caf\\udce8.png');
    expect(systemPath(linesOf(out)[0]!.path)).toBeInstanceOf(Buffer);
  }, 60_000);
});

describe('--out never writes over an input', () => {
  const named = (folder: string, inputs: readonly string[], out: string) =>
    collect(
      namedInputs(
        { inputs, nul: false, out },
        { stdin: (async function* () {})(), reporter: createReporter({ write: () => 0 }, 'silent') },
      ),
    ).then((items) => items.map((item) => item.path.replace(`${folder}/`, '')));

  test('through links, from a parent folder, or one input over another', async () => {
    const folder = temporaryFolder();
    write(folder, { 'in/a.png': greyPng(1), 'in/in/a.png': greyPng(2), 'other/a.png': greyPng(3) });
    symlinkSync(join(folder, 'in'), join(folder, 'link'));
    const at = (name: string) => join(folder, name);
    await expect(named(folder, [at('in')], at('in'))).rejects.toThrow(
      'is an input too, and its images would be written over',
    );
    await expect(named(folder, [at('in')], at('link'))).rejects.toThrow('is an input too');
    await expect(named(folder, [at('in/a.png')], at('link'))).rejects.toThrow(
      'in/a.png would be written over',
    );
    await expect(named(folder, [at('in')], folder)).rejects.toThrow(
      'in/a.png is in an input folder and would be written over',
    );
    await expect(named(folder, [at('other/a.png'), at('in/a.png')], at('in'))).rejects.toThrow('the input');
    expect(await named(folder, [at('other')], folder)).toEqual(['other/a.png']);
  });

  test('and does not read the results of an earlier run, also through a link to --out', async () => {
    const folder = temporaryFolder();
    write(folder, { 'in/a.png': greyPng(1), 'in/out/a.png': greyPng(2), link: `->${folder}/in/out` });
    expect(await named(folder, [join(folder, 'in')], join(folder, 'link'))).toEqual(['in/a.png']);
  });
});

import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  candidatesByName,
  candidatesByPrompt,
  candidatesFor,
  nearest,
  readPrompts,
} from '../../src/pipeline/command/shared/candidates.ts';
import { LABELS, SUMMARY, TEXT_SUMMARY } from './fake-folder.ts';
import { temporaryFolder, write } from './image-files.ts';

describe('candidates', () => {
  test('are found by name, ignoring case, in the order of the names', () => {
    expect(candidatesByName(['fox', 'ANT'], LABELS)).toEqual([
      { label: 'fox', classidx: 5 },
      { label: 'ant', classidx: 0 },
    ]);
  });

  test('are found by exact name if classes differ only in case', () => {
    expect(candidatesByName(['Polish'], ['polish', 'Polish'])).toEqual([{ label: 'Polish', classidx: 1 }]);
    expect(() => candidatesByName(['POLISH'], ['polish', 'Polish'])).toThrow('no class "POLISH"');
  });

  test('are found by number if no class has that name, so that each of several with one name can be chosen', () => {
    const labels = ['crane', 'fox', 'crane', '1'];
    expect(candidatesByName(['2', '0', '1'], labels)).toEqual([
      { label: 'crane', classidx: 2 },
      { label: 'crane', classidx: 0 },
      { label: '1', classidx: 3 },
    ]);
    expect(() => candidatesByName(['crane'], labels)).toThrow(
      '--labels: "crane" is the name of the classes 0 and 2; give the number of the one that is meant',
    );
    expect(() => candidatesByName(['4'], labels)).toThrow('the model has no class "4"');
  });

  test('are rejected for an unknown name, with the nearest one, and for a repeated name', () => {
    expect(() => candidatesByName(['foxx'], LABELS)).toThrow(
      'the model has no class "foxx"; the nearest is "fox"',
    );
    expect(() => candidatesByName(['fox', 'Fox'], LABELS)).toThrow('"Fox" is given twice');
    expect(nearest('bee', [])).toBeUndefined();
  });

  test('come from a table of prompts, with one candidate per class', async () => {
    const folder = temporaryFolder();
    write(folder, {
      'p.csv':
        '\ufeffprompt,classname,classidx,more\n"a photo, of a cat",cat,2,x\nanother cat,cat,2,\nfox,fox,5,\n',
    });
    const rows = await readPrompts(join(folder, 'p.csv'));
    expect(rows[0]).toEqual({ prompt: 'a photo, of a cat', classname: 'cat', classidx: 2 });
    expect(candidatesByPrompt(rows, LABELS)).toEqual([
      { label: 'cat', classidx: 2 },
      { label: 'fox', classidx: 5 },
    ]);
    expect(() => candidatesByPrompt(rows, LABELS.slice(0, 3))).toThrow(
      'classidx 5 (fox); the model has 0 to 2',
    );
  });

  test('come from tables of spreadsheets: byte order mark, CRLF, quotes, commas, line feeds in a prompt', async () => {
    const folder = temporaryFolder();
    write(folder, {
      'p.csv':
        '\ufeffclassidx,prompt,classname\r\n3,"a ""photo"", of a\nbig cat","cat, big"\r\n\r\n0,été 猫,x\r\n',
    });
    expect(await readPrompts(join(folder, 'p.csv'))).toEqual([
      { prompt: 'a "photo", of a\nbig cat', classname: 'cat, big', classidx: 3 },
      { prompt: 'été 猫', classname: 'x', classidx: 0 },
    ]);
  });

  test.each<[string, Uint8Array | string]>([
    ['semicolons', 'prompt;classname;classidx\r\n"a cat; été, or ""two""";cat;2\r\na dog;dog;5\r\n'],
    ['tabs', 'prompt\tclassname\tclassidx\n"a cat; été, or ""two"""\tcat\t2\na dog\tdog\t5\n'],
    ['a byte order mark', '\ufeffprompt,classname,classidx\n"a cat; été, or ""two""",cat,2\na dog,dog,5\n'],
    [
      'UTF-16',
      Buffer.from(
        '\ufeffprompt\tclassname\tclassidx\r\n"a cat; été, or ""two"""\tcat\t2\r\na dog\tdog\t5',
        'utf16le',
      ),
    ],
    [
      'Latin-1',
      Buffer.from('prompt;classname;classidx\n"a cat; \xe9t\xe9, or ""two""";cat;2\na dog;dog;5\n', 'latin1'),
    ],
    [
      'quoted column names',
      '"prompt,,,;";"prompt";"classname";"classidx"\nx;"a cat; été, or ""two""";cat;2\nx;a dog;dog;5',
    ],
  ])('a table with %s', async (_, content) => {
    const folder = temporaryFolder();
    write(folder, { 'p.csv': content });
    expect(await readPrompts(join(folder, 'p.csv'))).toEqual([
      { prompt: 'a cat; été, or "two"', classname: 'cat', classidx: 2 },
      { prompt: 'a dog', classname: 'dog', classidx: 5 },
    ]);
  });

  test('may have characters of Windows-1252 that Latin-1 lacks', async () => {
    const folder = temporaryFolder();
    const text = Buffer.from('prompt,classname,classidx\n5 \x80 \x96 bill,bill,0\n', 'latin1');
    write(folder, { 'p.csv': text });
    expect(await readPrompts(join(folder, 'p.csv'))).toMatchObject([{ prompt: '5 € – bill' }]);
  });

  test('are rejected if there is only one class', () => {
    const first = { prompt: 'a', classname: 'cat', classidx: 0 };
    for (const [choice, sentence] of [
      [{ labels: ['ant'] }, '--labels: expected at least two classes, got one (ant)'],
      [
        { rows: [first, { ...first, prompt: 'b' }] },
        '--prompts: expected at least two classes, got one (cat)',
      ],
    ] as const)
      for (const summary of [SUMMARY, TEXT_SUMMARY])
        expect(() => candidatesFor(summary, choice)).toThrow(sentence);
  });

  test('of a text model are the rows, or a label with each template', () => {
    const rows = [
      { prompt: 'a cat', classname: 'cat', classidx: 7 },
      { prompt: 'a kitten', classname: 'kitten', classidx: 7 },
      { prompt: 'a dog', classname: 'dog', classidx: 1 },
    ];
    expect(candidatesFor(TEXT_SUMMARY, { rows })).toEqual([
      { label: 'cat', classidx: 7, prompt: 'a cat' },
      { label: 'kitten', classidx: 7, prompt: 'a kitten' },
      { label: 'dog', classidx: 1, prompt: 'a dog' },
    ]);
    expect(candidatesFor(TEXT_SUMMARY, { labels: ['cat', '$& dog'] })).toEqual([
      { label: 'cat', classidx: 0, prompt: 'a photo of a cat.' },
      { label: '$& dog', classidx: 1, prompt: 'a photo of a $& dog.' },
    ]);
    expect(candidatesFor(TEXT_SUMMARY, { labels: ['A', 'a'], template: ['{}', '{} or {}'] })).toEqual([
      { label: 'A', classidx: 0, prompt: 'A' },
      { label: 'A', classidx: 0, prompt: 'A or A' },
      { label: 'a', classidx: 1, prompt: 'a' },
      { label: 'a', classidx: 1, prompt: 'a or a' },
    ]);
    expect(() => candidatesFor(TEXT_SUMMARY, { labels: ['a', 'b', 'a'] })).toThrow('"a" is given twice');
    expect(() => candidatesFor(TEXT_SUMMARY, {})).toThrow('with --labels A,B,... or --prompts FILE');
  });

  test.each([
    ['prompt,classname\na,b\n', 'classidx is missing'],
    ['prompt,classname,classidx\na,b,x\n', 'line 2: classidx is "x"'],
    ['prompt,classname,classidx\n', 'holds no prompts'],
    ['prompt,classname,classidx\n"a,b,1\n', 'is not CSV'],
  ])('%j', async (text, message) => {
    const folder = temporaryFolder();
    write(folder, { 'p.csv': text });
    await expect(readPrompts(join(folder, 'p.csv'))).rejects.toThrow(message);
  });
});

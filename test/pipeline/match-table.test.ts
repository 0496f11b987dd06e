// Tests the table of images and captions that `match` reads.

import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { inGroups, readItems } from '../../src/pipeline/command/subcommands/match/match-table.ts';
import { collect } from './fake-model.ts';
import { temporaryFolder, write } from './image-files.ts';

describe('the table', () => {
  const table = (text: string) => {
    const folder = temporaryFolder();
    write(folder, { 'pairs.csv': text });
    return { folder, items: () => collect(readItems(join(folder, 'pairs.csv'))) };
  };

  test('items of two and three, quotes, CRLF, a byte order mark, columns in any order', async () => {
    const { folder, items } = table(
      '\ufeffcaption,item,more,image\r\n"a dog, biting a man",1,x,a.png\r\na man,1,,sub/b.png\r\n' +
        'x,2,,/c.png\r\n"",2,,d.png\r\nz,2,,e.png\r\n',
    );
    expect(await items()).toEqual([
      {
        item: '1',
        images: [join(folder, 'a.png'), join(folder, 'sub/b.png')],
        captions: ['a dog, biting a man', 'a man'],
      },
      {
        item: '2',
        images: ['/c.png', join(folder, 'd.png'), join(folder, 'e.png')],
        captions: ['x', '', 'z'],
      },
    ]);
  });

  test.each([
    ['item,image\n1,a\n', 'expected the columns item, image and caption; caption is missing'],
    ['item,image,caption\n1,,c\n', 'line 2: image is empty'],
    ['item,image,caption\n', 'holds no items'],
    ['item,image,caption\n1,a,b\n2,a,b\n2,a,b\n', 'line 2: item "1" has one row'],
    ['item,image,caption\n1,a,b\n1,a,b\n2,a,b\n2,a,b\n1,a,b\n', 'line 6: item "1" appeared before'],
    ['item,image,caption\n1,"a,b\n', 'is not CSV'],
  ])('%j', async (text, message) => {
    await expect(table(text).items()).rejects.toThrow(message);
  });

  test('is split into groups with a bounded number of captions, and at least one item', async () => {
    const items = [
      ['a', 'b'],
      ['b', 'c'],
      ['d', 'e', 'f', 'g'],
      ['h', 'i'],
    ].map((captions, i) => ({
      item: String(i),
      images: captions,
      captions,
    }));
    const source = async function* () {
      yield* items;
    };
    const groups = await collect(inGroups(source(), 3));
    expect(groups.map((group) => group.map(({ item }) => item))).toEqual([['0', '1'], ['2'], ['3']]);
  });
});

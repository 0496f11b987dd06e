import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { main } from '../../src/pipeline/command/main.ts';
import { fakeFolder } from './fake-folder.ts';
import { temporaryFolder, write } from './image-files.ts';

const golden = fileURLToPath(new URL('../golden/edmpickle/uncond.pkl', import.meta.url));

async function convert(...argv: readonly string[]) {
  let text = '';
  const write = (more: string) => {
    text += more;
    return true;
  };
  const stderr = { isTTY: false, columns: 80, write };
  const status = await main(['convert', ...argv], {
    openModel: fakeFolder(),
    describe: () => Promise.reject(new Error('not asked for')),
    stderr,
  });
  return { status, text };
}

test('convert creates a folder, and never overwrites one', async () => {
  const out = join(temporaryFolder(), 'model');
  const made = await convert(golden, out);
  expect(made).toEqual({
    status: 0,
    text: expect.stringMatching(/^diffclass-stream: \d+ tensors, [\d,]+ numbers, in .*model\n$/),
  });
  const config = readFileSync(join(out, 'config.json'), 'utf8');
  expect(JSON.parse(config)).toMatchObject({
    _class_name: 'EDMPrecond',
    model_type: 'SongUNet',
    img_resolution: 2,
  });
  expect(await convert(golden, out)).toMatchObject({ status: 2, text: expect.stringContaining('already') });
  expect(readFileSync(join(out, 'config.json'), 'utf8')).toBe(config);
});

test('convert rejects a folder that cannot be created before it reads the file', async () => {
  const folder = temporaryFolder();
  write(folder, { file: '' });
  const { status, text } = await convert(join(folder, 'no.pkl'), join(folder, 'file'));
  expect(status).toBe(2);
  expect(text).toMatch(/^diffclass-stream: OUT: .*file is a file; expected a folder\n$/);
});

test('convert rejects a file that would execute code, with status 3', async () => {
  const folder = temporaryFolder();
  const touched = join(folder, 'touched');
  write(folder, { 'evil.pkl': `cos\nsystem\n(S'touch ${touched}'\ntR.` });
  const { status, text } = await convert(join(folder, 'evil.pkl'), join(folder, 'out'));
  expect(status).toBe(3);
  expect(text).toMatch(
    /^diffclass-stream: .*evil\.pkl: the pickle names os\.system, which is not supported .*\n$/,
  );
  expect(() => readFileSync(touched)).toThrow('ENOENT');
  expect((await convert(join(folder, 'evil.pkl'))).status).toBe(2);
});

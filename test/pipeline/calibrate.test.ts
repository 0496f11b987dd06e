// Tests `calibrate` from the command line, with a fake model.

import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { main } from '../../src/pipeline/command/main.ts';
import { SHIPPED } from '../../src/pipeline/command/shared/model-folder.ts';
import { cli } from './captured-cli.ts';
import { fakeDescribe, fakeFolder, LABELS, TEXT_SUMMARY } from './fake-folder.ts';
import { hash } from './fake-model.ts';
import { greyPng, temporaryFolder, write } from './image-files.ts';

/**
 * Writes class folders of images whose shade is their class, two of them in wrong folders in either part, and a
 * model.
 */
function labelledSet(perClass = 8) {
  const root = temporaryFolder();
  for (const [c, label] of LABELS.slice(0, 4).entries())
    for (let i = 0; i < perClass; i++) {
      const shade = 10 * i + (c < 2 && (i === 2 || i === 5) ? (c + 1) % 4 : c);
      write(join(root, 'set', label), { [`${i}.png`]: Uint8Array.from(greyPng(shade)) });
    }
  mkdirSync(join(root, 'model'));
  return { root, set: join(root, 'set'), model: join(root, 'model'), card: join(root, 'model', 'card.json') };
}

/** Returns errors whose gaps differ between images, so that probabilities differ. */
const openModel = fakeFolder({
  errorOf: (byte, { classidx }) => 0.5 + (classidx === byte % 10 ? 0 : 0.01 + 0.03 * hash(byte, classidx)),
});

describe('calibrate', () => {
  test('fits and stores the temperature, and evaluates it on the held-out images', async () => {
    const { set, model, card } = labelledSet();
    writeFileSync(card, '{"kappa": 0.5}');
    const { status, out, err } = await cli(
      ['calibrate', set, '--model', model, '--in-place', '--format', 'json'],
      openModel,
    );
    expect(err).toBe(`diffclass-stream: the card as it was is kept as ${card}.bak\n`);
    expect(status).toBe(0);
    const found = JSON.parse(out);
    expect(found.images).toEqual({ fit: 16, heldOut: 16, failed: 0 });
    expect(found.temperature.before).toBe(0.01);
    expect(found.after.negativeLogLikelihood).toBeLessThan(found.before.negativeLogLikelihood);
    expect(found.after.accuracy).toBe(found.before.accuracy);
    expect(found.before.bins).toHaveLength(15);
    expect(found.stored).toBe(card);
    expect(JSON.parse(readFileSync(card, 'utf8'))).toEqual({
      temperature: found.temperature.after,
      kappa: 0.5,
    });
    // Another batch size gives the same bytes.
    const again = await cli(
      ['calibrate', set, '--model', model, '--format', 'json', '--print-only', '--batch', '3'],
      openModel,
    );
    expect(JSON.parse(again.out).temperature).toEqual(found.temperature);
  });

  test('--print-only prints the table and stores nothing', async () => {
    const { set, model, card } = labelledSet();
    const { status, out } = await cli(
      ['calibrate', set, '--model', model, '--print-only', '--bins', '4'],
      openModel,
    );
    expect(status).toBe(0);
    expect(existsSync(card)).toBe(false);
    expect(out).toMatch(/^model {10}fake\nimages {9}16 fitted to, 16 held out\naccuracy/);
    expect(out).toMatch(/temperature {4}0\.01000 {5}0\.0/);
    expect(out).toMatch(/not stored\n$/);
  });

  test('accepts a table of labels, numbers instead of names, and an unreadable image', async () => {
    const { root, model, card } = labelledSet();
    const rows = LABELS.slice(0, 4).flatMap((label, c) =>
      Array.from({ length: 8 }, (_, i) => `set/${label}/${i}.png,${i % 2 ? c : label}`),
    );
    write(root, { 'set.csv': `path,label\n${rows.join('\n')}\nset/none.png,ant\n` });
    const { status, err } = await cli(
      ['calibrate', join(root, 'set.csv'), '--model', model, '--in-place'],
      openModel,
    );
    expect(status).toBe(1);
    expect(err).toContain('none.png');
    expect(existsSync(card)).toBe(true);
  });

  test('accepts the prompts of a text model', async () => {
    const { set, model } = labelledSet();
    const text = fakeFolder({
      summary: TEXT_SUMMARY,
      errorOf: (byte, { classidx, prompt }) =>
        0.5 + (classidx === byte % 10 ? 0 : 0.02) + (prompt?.startsWith('a sketch') ? 0.1 : 0),
    });
    const prompts = [
      '--labels',
      LABELS.slice(0, 4).join(','),
      '--template',
      'a {}',
      '--template',
      'a sketch of a {}',
    ];
    const { status, out } = await cli(
      ['calibrate', set, '--model', model, '--in-place', '--image-size', '2', '--format', 'json', ...prompts],
      text,
    );
    expect(status).toBe(0);
    expect(JSON.parse(out).images.fit).toBe(16);
  });

  test.each([
    [
      'a class that the model does not have',
      ['--labels', 'ant,bee,cat'],
      /the model has no class "dog"; the nearest is/,
    ],
    [
      'a grid of its own without --print-only',
      ['--timesteps', 'even:4'],
      /--timesteps: a card's temperature holds for/,
    ],
    [
      'too few images to hold some out',
      ['--per-class', '1'],
      /expected images to fit to and images to hold out, got 4 and 0/,
    ],
  ])('%s: one sentence, status 2, no card', async (_, options, message) => {
    const { set, model, card } = labelledSet();
    const { status, out, err } = await cli(
      ['calibrate', set, '--model', model, '--in-place', ...options],
      openModel,
    );
    expect([status, out]).toEqual([2, '']);
    expect(err).toMatch(message);
    expect(existsSync(card)).toBe(false);
  });
});

describe('the temperature is stored', () => {
  const notOpened = async () => {
    throw new Error('the model was opened');
  };

  test('never in a shipped model, whatever names it', async () => {
    const { root, set } = labelledSet();
    const shipped = join(SHIPPED, 'fashion-mnist');
    const before = readFileSync(join(shipped, 'card.json'));
    symlinkSync(shipped, join(root, 'link'));
    for (const model of ['fashion-mnist', shipped, join(root, 'link')])
      for (const more of [[], ['--in-place']]) {
        const { status, err } = await cli(['calibrate', set, '--model', model, ...more], notOpened);
        expect(status).toBe(2);
        expect(err).toMatch(/^diffclass-stream: calibrate: a shipped model stays as it is; .*--out.*\n$/);
      }
    const beneath = await cli(['calibrate', set, '--out', join(shipped, 'new.json')], notOpened);
    expect(beneath.err).toContain('belongs to the shipped models');
    expect(readFileSync(join(shipped, 'card.json'))).toEqual(before);
  });

  test('in your own folder only if an option says so', async () => {
    const { set, model } = labelledSet();
    const { status, err } = await cli(['calibrate', set, '--model', model], notOpened);
    expect(status).toBe(2);
    expect(err).toMatch(/expected --in-place to change .*card\.json, --out .*, or --print-only/);
    for (const two of [
      ['--print-only', '--in-place'],
      ['--in-place', '--out', 'x'],
    ])
      expect((await cli(['calibrate', set, '--model', model, ...two], notOpened)).err).toContain(
        'exclude each other',
      );
  });

  test.each([
    ['y', true],
    ['no', false],
    ['', false],
  ])('or if the answer to the question on a terminal is yes: "%s"', async (answer, stored) => {
    const { set, model, card } = labelledSet();
    const stdin = Object.assign(
      (async function* () {
        yield Buffer.from(`${answer}\n`);
      })(),
      { isTTY: true },
    );
    const texts: string[] = [];
    const status = await main(['calibrate', set, '--model', model], {
      openModel,
      describe: fakeDescribe(),
      stdin,
      stdout: new PassThrough().resume(),
      stderr: { write: (text: string) => texts.push(text) },
    });
    expect(status).toBe(0);
    expect(texts.join('')).toMatch(/store the temperature 0\.0\d+ in .*card\.json.*\? \(y\/N\)\n/);
    expect(existsSync(card)).toBe(stored);
  });

  test('with a copy of the card that it replaces', async () => {
    const { set, model, card } = labelledSet();
    const cards = ['{"kappa": 0.1}', '{"kappa": 0.2}', '{"kappa": 0.3}'];
    for (const text of cards) {
      writeFileSync(card, text);
      expect((await cli(['calibrate', set, '--model', model, '--in-place'], openModel)).status).toBe(0);
    }
    const copies = ['card.json.bak', 'card.json.bak-2', 'card.json.bak-3'];
    expect(copies.map((name) => readFileSync(join(model, name), 'utf8'))).toEqual(cards);
  });

  test('in --out: in a new card, or in a copy of the folder; existing files are not replaced', async () => {
    const { root, set, model, card } = labelledSet();
    writeFileSync(card, '{"kappa": 0.5}');
    write(model, { 'unet/weights': 'weights' });
    const run = (out: string) =>
      cli(['calibrate', set, '--model', model, '--out', join(root, out), '--format', 'json'], openModel);
    const [file, folder] = [await run('new.json'), await run('copy')];
    const { temperature, stored } = JSON.parse(file.out);
    expect(stored).toBe(join(root, 'new.json'));
    expect(JSON.parse(folder.out).stored).toBe(join(root, 'copy/card.json'));
    for (const path of ['new.json', 'copy/card.json'])
      expect(JSON.parse(readFileSync(join(root, path), 'utf8'))).toEqual({
        kappa: 0.5,
        temperature: temperature.after,
      });
    expect(readFileSync(join(root, 'copy/unet/weights'), 'utf8')).toBe('weights');
    expect(readFileSync(card, 'utf8')).toBe('{"kappa": 0.5}');
    for (const out of ['new.json', 'copy']) {
      const again = await run(out);
      expect(again.status).toBe(2);
      expect(again.err).toContain('exists already; name another');
    }
  });

  test('nowhere with --dry-run, which prints the expected time', async () => {
    const { set, model, card } = labelledSet();
    const { status, out } = await cli(['calibrate', set, '--model', model, '--dry-run'], openModel);
    expect(status).toBe(0);
    expect(out).toMatch(/^work +80 evaluations per image$/m);
    expect(out).toMatch(/^all 32 images +.+ to .+, typically .+, what is spent once included$/m);
    expect(existsSync(card)).toBe(false);
  });

  test('nowhere if the set does not exist, which is checked before the model is opened', async () => {
    const { model } = labelledSet();
    const { status, err } = await cli(
      ['calibrate', join(model, 'no'), '--model', model, '--print-only'],
      notOpened,
    );
    expect(status).toBe(2);
    expect(err).toContain('cannot be read (ENOENT)');
  });
});

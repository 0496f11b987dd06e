// `calibrate` from the command line, with a fake model.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { cli } from './capture.ts';
import { hash } from './fake.ts';
import { fakeFolder, LABELS, TEXT_SUMMARY } from './fakefolder.ts';
import { greyPng, temporaryFolder, write } from './imagefiles.ts';

/** Class folders of images whose shade tells their class, two in the wrong folder in either part; and an empty model folder. */
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

/** Errors with gaps of their own for every image, so that probabilities differ. */
const openModel = fakeFolder({
  errorOf: (byte, { classidx }) => 0.5 + (classidx === byte % 10 ? 0 : 0.01 + 0.03 * hash(byte, classidx)),
});

describe('calibrate', () => {
  test('fits, judges what was held out, and stores the temperature', async () => {
    const { set, model, card } = labelledSet();
    writeFileSync(card, '{"kappa": 0.5}');
    const { status, out, err } = await cli(['calibrate', set, '--model', model, '--json'], openModel);
    expect(err).not.toContain('diffclass-stream:');
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
    // The same again from another batch size: the same bytes.
    const again = await cli(
      ['calibrate', set, '--model', model, '--json', '--dry', '--batch', '3'],
      openModel,
    );
    expect(JSON.parse(again.out).temperature).toEqual(found.temperature);
  });

  test('--dry prints and stores nothing; the table for people', async () => {
    const { set, model, card } = labelledSet();
    const { status, out } = await cli(
      ['calibrate', set, '--model', model, '--dry', '--bins', '4'],
      openModel,
    );
    expect(status).toBe(0);
    expect(existsSync(card)).toBe(false);
    expect(out).toMatch(/^model {10}fake\nimages {9}16 fitted to, 16 held out\naccuracy/);
    expect(out).toMatch(/temperature {4}0\.01000 {5}0\.0/);
    expect(out).toMatch(/stored nowhere \(--dry\)\n$/);
  });

  test('a table of labels, numbers for names, an image that cannot be read', async () => {
    const { root, model, card } = labelledSet();
    const rows = LABELS.slice(0, 4).flatMap((label, c) =>
      Array.from({ length: 8 }, (_, i) => `set/${label}/${i}.png,${i % 2 ? c : label}`),
    );
    write(root, { 'set.csv': `path,label\n${rows.join('\n')}\nset/none.png,ant\n` });
    const { status, err } = await cli(['calibrate', join(root, 'set.csv'), '--model', model], openModel);
    expect(status).toBe(1);
    expect(err).toContain('none.png');
    expect(existsSync(card)).toBe(true);
  });

  test('prompts of a text model', async () => {
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
      ['calibrate', set, '--model', model, '--image-size', '2', '--json', ...prompts],
      text,
    );
    expect(status).toBe(0);
    expect(JSON.parse(out).images.fit).toBe(16);
  });

  test.each([
    [
      'a class the model does not have',
      ['--labels', 'ant,bee,cat'],
      /the label "dog" is no class of the model; the nearest is/,
    ],
    [
      'a grid of its own without --dry',
      ['--timesteps', 'even:4'],
      /--timesteps: the temperature of a card is for/,
    ],
    ['nothing to hold out', ['--per-class', '1'], /4 images leave 4 to fit to and 0 held out/],
  ])('%s: one sentence, status 2, no card', async (_, options, message) => {
    const { set, model, card } = labelledSet();
    const { status, out, err } = await cli(['calibrate', set, '--model', model, ...options], openModel);
    expect([status, out]).toEqual([2, '']);
    expect(err).toMatch(message);
    expect(existsSync(card)).toBe(false);
  });
});

// Tests the commands attack and evaluate with a fake model.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import type { OpenModelOptions } from '../../../src/graph/models/open-model.ts';
import { openSafetensors } from '../../../src/graph/node/open-safetensors.ts';
import { diffusionClassifier } from '../../../src/pipeline/attacking/diffusion-classifier.ts';
import { argmax } from '../../../src/pipeline/attacking/losses.ts';
import { quotas } from '../../../src/pipeline/command/shared/labelled-set.ts';
import { itemFrom } from '../../../src/pipeline/node/image-from.ts';
import { encodePng } from '../../../src/pipeline/node/png.ts';
import { cli, linesOf } from '../captured-cli.ts';
import { fakeFolder, LABELS, SUMMARY } from '../fake-folder.ts';
import { hash } from '../fake-model.ts';
import { goodImages, temporaryFolder, write } from '../image-files.ts';
import { smoothModel } from './fake-classifiers.ts';

const CLASSES = 4;
const SIDE = 4;
const summary = { ...SUMMARY, inputShape: [1, SIDE, SIDE] as const, labels: LABELS.slice(0, CLASSES) };

let opened: ReturnType<typeof smoothModel>[] = [];
const open = async (_: string, options: OpenModelOptions) => {
  const candidates = options.unconditional
    ? [{ label: '', classidx: -1 }]
    : (options.candidates?.(summary) ?? []);
  const model = smoothModel({
    classes: CLASSES,
    side: SIDE,
    levels: (options.levels?.(summary) ?? []).length || 4,
  });
  opened.push(model);
  return Object.assign(model, { candidates, device: 'a fake device' });
};

const bytesOf = (k: number) =>
  Uint8Array.from({ length: SIDE * SIDE }, (_, i) => Math.floor(256 * hash(k, i, 8)));
const png = (k: number) => encodePng({ width: SIDE, height: SIDE, channels: 1, data: bytesOf(k) });

/** The class that the fake model gives image k. */
async function truthOf(k: number): Promise<number> {
  const classifier = diffusionClassifier(smoothModel({ classes: CLASSES, side: SIDE, levels: 8 }));
  return argmax(
    await classifier.logits(
      Float64Array.from(bytesOf(k), (v) => v / 255),
      0,
    ),
  );
}

const COUNT = 12;

/** Writes twelve images as class folders (two images in wrong ones), as a table, and as an IDX file. */
async function sets() {
  const folder = temporaryFolder();
  const labels: number[] = [];
  for (let k = 0; k < COUNT; k++) labels.push(((await truthOf(k)) + (k % 6 === 5 ? 1 : 0)) % CLASSES);
  const rows = ['path,label'];
  for (const [k, label] of labels.entries()) {
    write(folder, { [`set/${LABELS[label]}/${k}.png`]: png(k), [`flat/${k}.png`]: png(k) });
    rows.push(`${k}.png,${k % 2 === 0 ? label : LABELS[label]}`);
  }
  const header = (...sizes: number[]) => {
    const head = Buffer.alloc(4 + 4 * sizes.length);
    head.writeUInt32BE(0x800 + sizes.length, 0);
    for (const [i, size] of sizes.entries()) head.writeUInt32BE(size, 4 + 4 * i);
    return head;
  };
  const pixels = Buffer.concat(labels.map((_, k) => Buffer.from(bytesOf(k))));
  write(folder, {
    'labels.csv': rows.join('\n'),
    'x-images-idx3-ubyte.gz': gzipSync(Buffer.concat([header(COUNT, SIDE, SIDE), pixels])),
    'x-labels-idx1-ubyte.gz': gzipSync(Buffer.concat([header(COUNT), Buffer.from(labels)])),
  });
  return folder;
}

const ATTACKED = ['--eps', '0.06', '--steps', '15', '--restarts', '1', '--attacks', 'apgd-ce,apgd-t,pgd'];
const evaluate = (...argv: string[]) => cli(['evaluate', ...argv], open);

describe('evaluate', () => {
  test('prints a table of the clean accuracy, every attack and the worst case, with intervals', async () => {
    const folder = await sets();
    const { status, out, err } = await evaluate(join(folder, 'set'), ...ATTACKED, '--format', 'json');
    expect(err).toContain('12 images evaluated with smooth');
    expect(status).toBe(0);
    const table = JSON.parse(out);
    expect(table).toMatchObject({
      images: 12,
      clean: { count: 10, of: 12 },
      failures: 0,
      norm: 'linf',
      eps: '0.06',
    });
    expect(table.attacks.map(({ attack }: { attack: string }) => attack)).toEqual([
      'apgd-ce',
      'apgd-t',
      'pgd',
    ]);
    const counts = table.attacks.map(({ robust }: { robust: { count: number } }) => robust.count);
    expect(table.worst.count).toBeLessThanOrEqual(Math.min(...counts));
    expect(table.worst.count).toBeLessThan(10);
    expect(table.clean.interval[0]).toBeCloseTo(0.552, 3);
    const larger = JSON.parse(
      (await evaluate(join(folder, 'set'), '--eps', '0.5', '--steps', '15', '--format', 'json')).out,
    );
    expect(larger.worst.count).toBeLessThan(table.worst.count);
  });

  test('does not attack an image again after a success, unless every attack is requested', async () => {
    const folder = await sets();
    const run = async (...more: string[]) => {
      const { status, out } = await evaluate(join(folder, 'set'), ...ATTACKED, '--format', 'json', ...more);
      expect(status).toBe(0);
      return JSON.parse(out);
    };
    const [some, every] = [await run(), await run('--every-attack')];
    const attacked = (table: { attacks: { attacked: number }[] }) => table.attacks.map((row) => row.attacked);
    const right = some.attacks.map(({ robust }: { robust: { count: number } }) => robust.count);
    expect(attacked(every)).toEqual([10, 10, 10]);
    expect(attacked(some)).toEqual([10, right[0], right[1]]);
    expect(right[0]).toBeLessThan(10);
    expect(some.worst).toEqual(every.worst);
    expect(some.worst.count).toBe(right[2]);
    expect(every.attacks[0]).toEqual(some.attacks[0]);
    const { out } = await evaluate(join(folder, 'set'), ...ATTACKED);
    expect(out).toMatch(/^ +attacked +right +accuracy %/);
    expect(out).toMatch(/^apgd-ce +10 +\d/m);
    expect(out).toMatch(/of 12 images, attacks in linf with eps 0\.06\n$/);
  });

  test('resumes a run of every attack from a log of fewer attacks, and the reverse', async () => {
    const folder = await sets();
    const run = (output: string, ...more: string[]) =>
      evaluate(join(folder, 'set'), ...ATTACKED, '-o', join(folder, output), ...more);
    const tables: Record<string, string> = {};
    for (const [output, ...options] of [
      ['some'],
      ['every', '--every-attack'],
      ['some', '--resume', '--every-attack'],
      ['every', '--resume'],
    ] as const) {
      expect((await run(output, ...options)).status).toBe(0);
      const text = readFileSync(join(folder, output), 'utf8');
      const name = options.some((option) => option === '--every-attack') ? 'every' : 'some';
      tables[name] ??= text;
      expect(text).toBe(tables[name]);
    }
    expect(tables.some).not.toBe(tables.every);
  });

  test('records its settings, with paths relative to the set and eps as typed', async () => {
    const folder = await sets();
    const output = join(folder, 'o.json');
    const argv = [
      '--eps',
      '16/255',
      '--steps',
      '3',
      '--attacks',
      'apgd-ce',
      '--format',
      'json',
      '-o',
      output,
    ];
    expect((await evaluate(join(folder, 'set'), ...argv)).status).toBe(0);
    const [heading, ...lines] = linesOf(readFileSync(`${output}.log.jsonl`, 'utf8'));
    expect(heading.evaluation).toMatchObject({ eps: '16/255', set: 'set', seed: 0, weights: null });
    expect(heading.made).toEqual({
      version: expect.stringMatching(/^\d+\.\d+\.\d+/),
      device: 'a fake device',
      date: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
    });
    expect(lines.map(({ key }) => key)).toContain(`${LABELS[await truthOf(0)]}/0.png`);
    const report = readFileSync(output, 'utf8');
    expect(JSON.parse(report)).toMatchObject({ eps: '16/255', ...heading.made, options: heading.evaluation });
    for (const text of [report, readFileSync(`${output}.log.jsonl`, 'utf8')]) {
      expect(text).not.toContain(folder);
      expect(text).not.toContain('0.0627');
    }
    // The set may be in another folder if the run is resumed.
    renameSync(join(folder, 'set'), join(folder, 'flat', 'set'));
    opened = [];
    expect((await evaluate(join(folder, 'flat/set'), ...argv, '--resume')).status).toBe(0);
    expect(opened[0]!.evaluations).toBe(0);
  });

  test('neither empties an existing output nor mixes it with another run', async () => {
    const folder = await sets();
    const output = join(folder, 'o.txt');
    const run = (...more: string[]) =>
      evaluate(join(folder, 'set'), '--attacks', 'none', '-o', output, ...more);
    await run();
    const before = readFileSync(output, 'utf8');
    opened = [];
    const again = await run('--images', '3');
    expect(again).toMatchObject({ status: 2, out: '' });
    expect(again.err).toContain(`${output} exists already; --resume continues it, --overwrite replaces it`);
    expect(opened).toEqual([]);
    expect(readFileSync(output, 'utf8')).toBe(before);
    expect((await run('--images', '3', '--overwrite')).status).toBe(0);
    expect(readFileSync(output, 'utf8')).toContain('of 3 images');
  });

  test('--save: writes a set of images and their floats, and completes them if resumed', async () => {
    const folder = await sets();
    const [output, save] = [join(folder, 'o.txt'), join(folder, 'adversarial')];
    const run = (...more: string[]) =>
      evaluate(join(folder, 'x-images-idx3-ubyte.gz'), ...ATTACKED, '-o', output, ...more);
    expect((await run('--save', save)).status).toBe(0);
    const broken = linesOf(readFileSync(`${output}.log.jsonl`, 'utf8')).filter(
      ({ attack, right }) => attack !== undefined && attack !== 'clean' && !right,
    );
    expect(broken.length).toBeGreaterThan(2);
    for (const { key, attack, label, saved } of broken) {
      expect(saved).toBe(`${attack}/${LABELS[label]}/${key}.png`);
      const { pixels } = await itemFrom(join(save, saved), [1, SIDE, SIDE]);
      const file = await openSafetensors(join(save, saved.replace(/png$/, 'safetensors')));
      const floats = await file.readF32('image');
      await file.close();
      expect(file.tensors.get('image')?.shape).toEqual([1, SIDE, SIDE]);
      const clean = bytesOf(Number(key.split('#')[1]));
      for (const [i, byte] of clean.entries()) {
        expect(Math.abs((floats[i]! + 1) / 2 - byte / 255)).toBeLessThanOrEqual(0.06 + 1e-6);
        expect(Math.abs((pixels[i]! + 1) / 2 - byte / 255)).toBeLessThanOrEqual(0.06 + 1e-6);
      }
    }
    const first = broken.find(({ attack }) => attack === 'apgd-ce');
    const again = await evaluate(join(save, 'apgd-ce'), '--attacks', 'none', '--format', 'json');
    expect(JSON.parse(again.out).images).toBe(broken.filter(({ attack }) => attack === 'apgd-ce').length);
    rmSync(join(save, first.saved));
    opened = [];
    expect((await run('--save', save, '--resume')).status).toBe(0);
    expect(existsSync(join(save, first.saved))).toBe(true);
    expect(opened[0]!.evaluations).toBeGreaterThan(0);
    expect((await run('--attacks', 'none', '--save', save)).err).toContain('--save needs --attacks');
  });

  test('--dry-run: prints a range of time and writes nothing', async () => {
    const folder = await sets();
    const output = join(folder, 'o.txt');
    const argv = [join(folder, 'set'), ...ATTACKED, '--dry-run', '-o', output];
    const { status, out } = await evaluate(...argv);
    expect(status).toBe(0);
    expect(out).toMatch(/^work +per image at most 10 queries for logits and 48 for gradients; at least 1/m);
    expect(out).toMatch(/^all 12 images +.+ to .+/m);
    expect(existsSync(output)).toBe(false);
    const { queries, images, seconds } = JSON.parse((await evaluate(...argv, '--format', 'json')).out);
    expect(queries.most).toEqual({ judge: 7, logits: 3, gradients: 48 });
    expect(images).toBe(12);
    expect(seconds.all.least).toBeLessThan(seconds.all.most);
  });

  test('checks the output files before it opens the model', async () => {
    const folder = await sets();
    const set = join(folder, 'set');
    opened = [];
    const refused = async (...argv: string[]) => {
      const { status, out, err } = await cli(argv, open);
      expect([status, out, opened.length]).toEqual([2, '', 0]);
      return err;
    };
    const clean = ['--attacks', 'none'];
    expect(await refused('evaluate', join(folder, 'no'), ...clean)).toContain('no: cannot be read (ENOENT)');
    expect(await refused('evaluate', set, ...clean, '-o', join(folder, 'no/o'))).toContain(
      'its folder does not exist',
    );
    expect(await refused('evaluate', set, ...clean, '-o', set)).toContain('is a folder; expected a file');
    const table = join(folder, 'labels.csv');
    expect(await refused('evaluate', set, '--eps', '0.1', '--save', table)).toContain('expected a folder');
    const attack = ['attack', set, '--eps', '0.1', '--out'];
    expect(await refused(...attack, join(table, 'x'))).toMatch(/--out: .*(expected a folder|ENOTDIR)/);
    expect(await refused(...attack, join(folder, 'x'), '--truth', join(folder, 'no.csv'))).toContain(
      'no.csv',
    );
  });

  test('gives the same results for folders, a table and an IDX file', async () => {
    const folder = await sets();
    const rest = ['--eps', '0.06', '--steps', '5', '--attacks', 'apgd-ce'];
    const clean = (text: string) => text.split('\n')[1];
    const one = await evaluate(join(folder, 'set'), ...rest);
    const other = await evaluate(join(folder, 'flat'), '--labels-csv', join(folder, 'labels.csv'), ...rest);
    const truth = join(folder, 'flat', 'truth.csv');
    copyFileSync(join(folder, 'labels.csv'), truth);
    const table = await evaluate(join(folder, 'flat'), '--truth', truth, ...rest);
    expect(table).toMatchObject({ status: 0, out: other.out });
    const idx = await evaluate(join(folder, 'x-images-idx3-ubyte.gz'), ...rest);
    expect(clean(one.out)).toMatch(/^clean +10 +83.33/);
    for (const { status, out } of [other, idx]) {
      expect(status).toBe(0);
      expect(clean(out)).toBe(clean(one.out));
    }
    const few = await evaluate(join(folder, 'x-images-idx3-ubyte.gz'), '--attacks', 'none', '--images', '5');
    expect(few.out).toContain('of 5 images');
    expect(few.out).not.toContain('worst');
  });

  test('takes --images evenly from the class folders', () => {
    const available = new Map([
      ['a', 1],
      ['b', 9],
      ['c', 4],
    ]);
    expect([...quotas(available, 8)]).toEqual([
      ['a', 1],
      ['b', 4],
      ['c', 3],
    ]);
    expect([...quotas(available, 99).values()]).toEqual([1, 9, 4]);
  });

  test('prints the same table after resuming, and repeats nothing', async () => {
    const folder = await sets();
    const run = (output: string, ...more: string[]) =>
      evaluate(join(folder, 'set'), ...ATTACKED, '-o', join(folder, output), '--concurrency', '1', ...more);
    opened = [];
    await run('whole');
    const spent = opened[0]!.evaluations;
    await run('cut');
    const log = join(folder, 'cut.log.jsonl');
    const lines = readFileSync(log, 'utf8').split('\n');
    truncateSync(log, lines.slice(0, 20).join('\n').length + 11); // the 21st line torn
    writeFileSync(join(folder, 'cut'), '');
    opened = [];
    expect((await run('cut', '--resume')).status).toBe(0);
    expect(readFileSync(join(folder, 'cut'), 'utf8')).toBe(readFileSync(join(folder, 'whole'), 'utf8'));
    expect(readFileSync(log, 'utf8')).toBe(lines.join('\n'));
    expect(opened[0]!.evaluations).toBeLessThan(spent / 1.5);
    opened = [];
    await run('cut', '--resume');
    expect(opened[0]!.evaluations).toBe(0);
    const other = await run('cut', '--resume', '--seed', '3');
    expect(other).toMatchObject({ status: 2 });
    expect(other.err).toContain('other settings (seed)');
  });

  test('can be killed and resumed as a process', { timeout: 120_000 }, async () => {
    const folder = temporaryFolder();
    for (const [k, file] of goodImages(folder, 30).entries())
      write(folder, { [`set/${LABELS[k % 10]}/${k}.png`]: readFileSync(file) });
    const argv = [
      'evaluate',
      join(folder, 'set'),
      '--attacks',
      'square',
      '--steps',
      '20',
      '--eps',
      '0.02',
      '--model',
      './fake',
    ];
    const output = (name: string) => ['--output', join(folder, name), '--concurrency', '1'];
    const program = join(import.meta.dirname, '../fake-cli.ts');
    const child = spawn(process.execPath, ['--import', 'tsx', program, '3', ...argv, ...output('killed')], {
      stdio: 'ignore',
    });
    const log = join(folder, 'killed.log.jsonl');
    const lines = () => (existsSync(log) ? readFileSync(log, 'utf8').split('\n').length - 1 : 0);
    while (lines() < 8) await sleep(20);
    child.kill('SIGKILL');
    await once(child, 'close');
    expect(lines()).toBeLessThan(60);
    expect(existsSync(join(folder, 'killed'))).toBe(false);
    appendFileSync(log, '{"key":"torn');
    const resumed = await cli([...argv, ...output('killed'), '--resume'], fakeFolder());
    const whole = await cli([...argv, ...output('whole')], fakeFolder());
    expect([resumed.status, whole.status]).toEqual([0, 0]);
    const text = readFileSync(join(folder, 'killed'), 'utf8');
    expect(text).toBe(readFileSync(join(folder, 'whole'), 'utf8'));
    expect(text).toMatch(/clean +30 +100.00/);
  });

  test('attacks a purification with each kind of gradient', async () => {
    const folder = await sets();
    const rest = [
      '--purify',
      'lm-momentum',
      '--purify-sigmas',
      '0.5,0.5',
      '--eps',
      '0.06',
      '--steps',
      '4',
      '--attacks',
      'pgd',
      '--format',
      'json',
    ];
    for (const mode of ['identity', 'full', 'transfer']) {
      const { status, out } = await evaluate(
        join(folder, 'set'),
        ...rest,
        '--images',
        '4',
        '--gradient',
        mode,
      );
      expect(status).toBe(0);
      expect(JSON.parse(out)).toMatchObject({ images: 4, purify: 'lm-momentum', gradient: mode });
    }
  });

  test('rejects contradictory options in one sentence', async () => {
    const folder = await sets();
    const set = join(folder, 'set');
    const refused = async (...argv: string[]) => {
      const { status, err } = await evaluate(set, ...argv);
      expect(status).toBe(2);
      return err;
    };
    expect(await refused()).toContain('--eps is missing');
    expect(await refused('--eps', '3')).toContain('expected a linf radius of at most 1');
    expect(await refused('--eps', '0.1', '--gradient', 'full')).toContain('--gradient needs --purify');
    expect(await refused('--eps', '0.1', '--attacks', 'fgsm')).toContain(
      '--attacks: expected different names',
    );
    expect(await refused('--attacks', 'none', '--resume')).toContain('--resume needs --output');
    mkdirSync(join(set, 'unicorn'));
    write(set, { 'unicorn/1.png': png(1) });
    expect(await refused('--attacks', 'none')).toContain('no class "unicorn"');
    const blind = async () => Object.assign(await open('', {}), { differentiable: undefined });
    const { err } = await cli(['evaluate', set, '--eps', '0.1'], blind);
    expect(err).toContain('has no gradients');
  });
});

describe('attack', () => {
  test('writes PNGs within the ball, and reports their classes', async () => {
    const folder = await sets();
    const out = join(folder, 'out');
    const { status } = await cli(
      [
        'attack',
        join(folder, 'set'),
        '--attack',
        'apgd-t',
        '--norm',
        'l2',
        '--eps',
        '0.6',
        '--steps',
        '15',
        '--out',
        out,
      ],
      open,
    );
    expect(status).toBe(0);
    const report = JSON.parse(readFileSync(join(out, 'report.json'), 'utf8'));
    expect(report).toMatchObject({
      attack: 'apgd-t',
      steps: 15,
      restarts: 9,
      norm: 'l2',
      clean: { count: 10, of: 12 },
    });
    expect(report.images).toHaveLength(COUNT);
    const classifier = diffusionClassifier(smoothModel({ classes: CLASSES, side: SIDE, levels: 8 }));
    let broken = 0;
    for (const { path, file, label, clean, adversarial, margin, l2, linf } of report.images) {
      const unit = async (name: string) =>
        Float64Array.from(
          (await itemFrom(name, [1, SIDE, SIDE])).pixels,
          (v) => Math.round((v + 1) * 127.5) / 255,
        );
      const [was, is] = [await unit(path), await unit(join(out, file))];
      const gap = Math.hypot(...is.map((v, i) => v - was[i]!));
      expect(gap).toBeCloseTo(l2, 9);
      expect(gap).toBeLessThanOrEqual(0.6 + 1e-9);
      expect(linf).toBeLessThanOrEqual(l2);
      const logits = await classifier.logits(is, 0);
      expect(LABELS[argmax(logits)]).toBe(adversarial);
      expect(margin < 0).toBe(adversarial !== label);
      if (clean === label && adversarial !== label) broken++;
    }
    expect(broken).toBeGreaterThan(3);
    expect(report.robust.count).toBeLessThanOrEqual(10 - broken);
    expect(readdirSync(out).sort()).toContain('report.json');
  });

  test('reads labels from a table; needs a folder for the images', async () => {
    const folder = await sets();
    write(folder, { 'paths.csv': 'path,label\nflat/0.png,1\nflat/1.png,bee\n' });
    const files = [join(folder, 'flat/0.png'), join(folder, 'flat/1.png')];
    const labels = ['--truth', join(folder, 'paths.csv')];
    const run = (...argv: string[]) =>
      cli(['attack', ...argv, '--attack', 'square', '--steps', '30', '--eps', '0.1'], open);
    expect((await run(...files, ...labels)).err).toContain('--out is missing');
    const out = join(folder, 'out');
    expect((await run(...files, ...labels, '--out', out)).status).toBe(0);
    const { images } = JSON.parse(readFileSync(join(out, 'report.json'), 'utf8'));
    expect(images.map(({ label }: { label: string }) => label)).toEqual(['bee', 'bee']);
    const truth = ['--truth', join(folder, 'paths.csv'), '--out', join(folder, 'truth')];
    expect((await run(...files, ...truth)).status).toBe(0);
    const older = ['--labels-from', join(folder, 'paths.csv')];
    expect((await run(...files, ...truth, ...older)).err).toContain(
      '--labels-from is the old spelling of --truth; leave one of them out',
    );
    expect((await run(join(folder, 'flat/2.png'), ...labels, '--out', out)).err).toContain(
      'has no label for',
    );
  });
});

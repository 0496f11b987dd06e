// The commands attack and evaluate on a model without a device.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import type { OpenModelOptions } from '../../../src/graph/openmodel.ts';
import { diffusionClassifier } from '../../../src/pipeline/attacking/classifier.ts';
import { argmax } from '../../../src/pipeline/attacking/losses.ts';
import { quotas } from '../../../src/pipeline/command/evaluate.ts';
import { loadImage } from '../../../src/pipeline/images/load.ts';
import { encodePng } from '../../../src/pipeline/images/png.ts';
import { cli } from '../capture.ts';
import { hash } from '../fake.ts';
import { fakeFolder, LABELS, SUMMARY } from '../fakefolder.ts';
import { goodImages, temporaryFolder, write } from '../imagefiles.ts';
import { smoothModel } from './fakes.ts';

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
  return Object.assign(model, { candidates });
};

const bytesOf = (k: number) =>
  Uint8Array.from({ length: SIDE * SIDE }, (_, i) => Math.floor(256 * hash(k, i, 8)));
const png = (k: number) => encodePng({ width: SIDE, height: SIDE, channels: 1, data: bytesOf(k) });

/** What the fake takes image k for. */
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

/** Twelve images in class folders, two of them in wrong ones, as a table, and as an IDX file. */
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
  test('the table: clean, every attack, the worst case, with intervals', async () => {
    const folder = await sets();
    const { status, out, err } = await evaluate(join(folder, 'set'), ...ATTACKED, '--json');
    expect(err).toContain('12 images of smooth');
    expect(status).toBe(0);
    const table = JSON.parse(out);
    expect(table).toMatchObject({
      images: 12,
      clean: { count: 10, of: 12 },
      failures: 0,
      norm: 'linf',
      eps: 0.06,
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
      (await evaluate(join(folder, 'set'), '--eps', '0.5', '--steps', '15', '--json')).out,
    );
    expect(larger.worst.count).toBeLessThan(table.worst.count);
  });

  test('folders, a table and an IDX file are the same set', async () => {
    const folder = await sets();
    const rest = ['--eps', '0.06', '--steps', '5', '--attacks', 'apgd-ce'];
    const clean = (text: string) => text.split('\n')[1];
    const one = await evaluate(join(folder, 'set'), ...rest);
    const other = await evaluate(join(folder, 'flat'), '--labels-csv', join(folder, 'labels.csv'), ...rest);
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

  test('so many images of class folders are shared out evenly', () => {
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

  test('resumed, it makes the same table, and does nothing twice', async () => {
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

  test('killed and resumed as a process', { timeout: 120_000 }, async () => {
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
    const program = join(import.meta.dirname, '../fakecli.ts');
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

  test('behind a purification, by each mode of the gradient', async () => {
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
      '--json',
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

  test('what cannot be meant is refused in one sentence', async () => {
    const folder = await sets();
    const set = join(folder, 'set');
    const refused = async (...argv: string[]) => {
      const { status, err } = await evaluate(set, ...argv);
      expect(status).toBe(2);
      return err;
    };
    expect(await refused()).toContain('--eps is missing');
    expect(await refused('--eps', '3')).toContain('pixels are in [0, 1]');
    expect(await refused('--eps', '0.1', '--gradient', 'full')).toContain('--gradient wants --purify');
    expect(await refused('--eps', '0.1', '--attacks', 'fgsm')).toContain('--attacks: wanted different names');
    expect(await refused('--attacks', 'none', '--resume')).toContain('--resume wants --output');
    mkdirSync(join(set, 'unicorn'));
    write(set, { 'unicorn/1.png': png(1) });
    expect(await refused('--attacks', 'none')).toContain('no class "unicorn"');
    const blind = async () => Object.assign(await open('', {}), { differentiable: undefined });
    const { err } = await cli(['evaluate', set, '--eps', '0.1'], blind);
    expect(err).toContain('has no gradients');
  });
});

describe('attack', () => {
  test('PNGs within the ball, and a report of what they are taken for', async () => {
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
        Float64Array.from(await loadImage(name, [1, SIDE, SIDE]), (v) => Math.round((v + 1) * 127.5) / 255);
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

  test('labels from a table; without the folder for images it is refused', async () => {
    const folder = await sets();
    write(folder, { 'paths.csv': 'path,label\nflat/0.png,1\nflat/1.png,bee\n' });
    const files = [join(folder, 'flat/0.png'), join(folder, 'flat/1.png')];
    const labels = ['--labels-from', join(folder, 'paths.csv')];
    const run = (...argv: string[]) =>
      cli(['attack', ...argv, '--attack', 'square', '--steps', '30', '--eps', '0.1'], open);
    expect((await run(...files, ...labels)).err).toContain('--out is missing');
    const out = join(folder, 'out');
    expect((await run(...files, ...labels, '--out', out)).status).toBe(0);
    const { images } = JSON.parse(readFileSync(join(out, 'report.json'), 'utf8'));
    expect(images.map(({ label }: { label: string }) => label)).toEqual(['bee', 'bee']);
    expect((await run(join(folder, 'flat/2.png'), ...labels, '--out', out)).err).toContain(
      'has no label for',
    );
  });
});

// `bench -- peers` without a network: its options, statistics, table and files, and a whole comparison of fake peers.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { nodeCommand } from '../../bench/node-command.ts';
import { CASES, type Product } from '../../bench/peers/cases.ts';
import { compare, type StartablePeer } from '../../bench/peers/compare.ts';
import { dataOf, relativeError } from '../../bench/peers/data.ts';
import { install } from '../../bench/peers/install.ts';
import { onnxModel } from '../../bench/peers/onnx-model.ts';
import { parseOptions } from '../../bench/peers/options.ts';
import { isDisturbed, usedMs } from '../../bench/peers/other-work.ts';
import { inverse, permuted } from '../../bench/peers/permute.ts';
import type { Results } from '../../bench/peers/results.ts';
import { summarise } from '../../bench/peers/statistics.ts';
import { tablesOf } from '../../bench/peers/table.ts';

const folder = mkdtempSync(join(tmpdir(), 'peers-test-'));
afterAll(() => rmSync(folder, { recursive: true }));

const product = (id: string): Product => ({
  op: 'gemm',
  id,
  flops: 2 * 3 * 4 * 5,
  inputs: { a: [3, 4], b: [4, 5] },
  uploads: ['b'],
  result: [3, 5],
});

describe('options', () => {
  it('has all cases and peers by default, this library first', () => {
    const options = parseOptions([])!;
    expect(options.cases).toEqual(CASES);
    expect(options.peers.map(({ id }) => id)).toEqual([
      'ours',
      'tfjs',
      'jax-js',
      'ort-webgpu',
      'ort-cpu',
      'pytorch',
    ]);
    expect(options.rounds).toBe(7);
    expect(options.json).toBe(join(options.folder, 'results.json'));
  });

  it('selects cases by parts of their names, and peers by their names', () => {
    const options = parseOptions(['--only', 'gemm,conv-dx', '--peers', 'pytorch,tfjs', '--folder', 'there'])!;
    expect(options.cases.map(({ id }) => id)).toEqual(['gemm-512', 'gemm-1024', 'conv-dx-32', 'conv-dx-16']);
    expect(options.peers.map(({ id }) => id)).toEqual(['ours', 'tfjs', 'pytorch']);
    expect(options.json).toBe(join('there', 'results.json'));
  });

  it.each([
    [['--only', 'gemm,lstm'], /expected --only to name some of gemm-512, .*, got "lstm"/],
    [['--peers', 'tfjs,ours'], /expected --peers to be a list of tfjs, .*, got "ours"/],
    [['--rounds', '0'], /expected --rounds to be a positive integer, got "0"/],
    [['--round', '3'], /Unknown option '--round'/],
  ])('refuses %j', (args, message) => {
    expect(() => parseOptions(args)).toThrow(message);
  });

  it('asks for help', () => {
    expect(parseOptions(['--help', '--rounds', 'many'])).toBeUndefined();
  });
});

it('summarises samples', () => {
  expect(summarise([4, 1, 3, 2, 10])).toEqual({ median: 3, least: 1, most: 10, spread: 1 / 3, samples: 5 });
  expect(() => summarise([])).toThrow('expected at least one sample, got none');
});

it('measures the largest difference relative to the largest value', () => {
  expect(relativeError([1, -4.5, 0], [1, -4, 0.25])).toBe(0.125);
  expect(relativeError([1, Number.NaN], [1, 2])).toBe(Number.POSITIVE_INFINITY);
  expect(relativeError([1], [1, 2])).toBe(Number.POSITIVE_INFINITY);
});

it('knows how much of the processors others used', () => {
  // user nice system idle iowait irq softirq steal guest guest_nice
  expect(usedMs('cpu  100 20 30 4000 500 6 7 8 9 10\ncpu0 1 2 3 4\n')).toBe(1710);
  expect(isDisturbed(54, 100)).toBe(false);
  expect(isDisturbed(56, 100)).toBe(true);
});

it('changes the order of axes, and back', () => {
  const values = Float32Array.from({ length: 24 }, (_, i) => i);
  const axes = [2, 0, 1];
  const changed = permuted(values, [2, 3, 4], axes);
  // [4, 2, 3]: the element (k, i, j) is (i, j, k) of the given array.
  expect(changed[(3 * 2 + 1) * 3 + 2]).toBe(values[(1 * 3 + 2) * 4 + 3]);
  expect(permuted(changed, [4, 2, 3], inverse(axes))).toEqual(values);
});

it('starts Node through the loader that started it', () => {
  const line = [
    '/mesa/ld-linux-x86-64.so.2',
    '--library-path',
    '/mesa',
    '/usr/bin/node',
    'bench.ts',
    '--only',
    'node',
  ];
  expect(nodeCommand('/mesa/ld-linux-x86-64.so.2', line.join('\0'))).toEqual(line.slice(0, 4));
  expect(nodeCommand('/usr/bin/node', 'node\0bench.ts\0')).toEqual(['/usr/bin/node']);
});

it('writes the bytes of a model that the Python package onnx writes', () => {
  const bytes = onnxModel({
    nodes: [
      { op: 'Conv', inputs: ['x', 'a'], outputs: ['t'], attributes: { pads: [1, 300] } },
      {
        op: 'MultiHeadAttention',
        domain: 'com.microsoft',
        inputs: ['t'],
        outputs: ['y'],
        attributes: { num_heads: 4 },
      },
      { op: 'InstanceNormalization', inputs: ['y'], outputs: ['z'], attributes: { epsilon: { float: 0.5 } } },
    ],
    inputs: [{ name: 'x', shape: [1, 300] }],
    outputs: [{ name: 'z', shape: [2, 1] }],
    constants: [
      { name: 'a', shape: [2, 1], values: Float32Array.of(1, 2) },
      { name: 's', shape: [2], values: BigInt64Array.of(-1n, 300n) },
    ],
  });
  expect(Buffer.from(bytes).toString('hex')).toBe(GOLD);
});

describe('installation', () => {
  it('keeps packages that are there in the right version', async () => {
    const own = join(folder, 'installed');
    mkdirSync(join(own, 'node_modules/@scope/name'), { recursive: true });
    writeFileSync(join(own, 'node_modules/@scope/name/package.json'), '{ "version": "1.2.3" }');
    await expect(withoutPrograms(() => install(own, ['@scope/name@1.2.3']))).resolves.toBeUndefined();
    await expect(withoutPrograms(() => install(own, ['@scope/name@1.2.4']))).rejects.toThrow(
      'npm install @scope/name@1.2.4 failed: spawn npm ENOENT',
    );
  });

  async function withoutPrograms<T>(run: () => Promise<T>): Promise<T> {
    const { PATH } = process.env;
    process.env.PATH = '';
    try {
      return await run();
    } finally {
      process.env.PATH = PATH;
    }
  }
});

it('keeps the data of a case and reads it again', () => {
  const made = dataOf(product('kept'), folder);
  expect(dataOf(product('kept'), folder)).toEqual(made);
  expect(made.expected).toHaveLength(15);
});

describe('a comparison', () => {
  const fake = (behaviour: string): StartablePeer => ({
    id: behaviour,
    title: `Fake ${behaviour}`,
    prepare: async () => {
      if (behaviour === 'uninstallable') throw new Error('npm install failed: offline');
      return [process.execPath, '--import', 'tsx', join(import.meta.dirname, 'fake-peer.ts'), behaviour];
    },
  });

  it('times peers that are right and says why the others have no times', { timeout: 60_000 }, async () => {
    const kept: Results[] = [];
    const peers = ['right', 'wrong', 'unable', 'crashing', 'absent', 'uninstallable', 'other'].map(fake);
    const results = await compare({
      peers,
      cases: [product('first'), product('second')],
      rounds: 3,
      folder,
      sampleMs: 10,
      say: () => {},
      keep: (partial) => kept.push(partial),
    });
    expect(kept.map(({ cases }) => cases.map(({ id }) => id))).toEqual([['first'], ['first', 'second']]);
    expect(results.peers.right).toEqual({ title: 'Fake right', description: 'a fake that is right' });
    expect(results.peers.absent?.description).toBe('not here: no such library');

    const [first, second] = results.cases.map(({ peers: found }) => found);
    const reasons = (found: typeof first) =>
      Object.fromEntries(found!.flatMap(({ peer, reason }) => (reason ? [[peer, reason]] : [])));
    expect(reasons(first)).toEqual({
      wrong: expect.stringMatching(/^its result is wrong: the largest relative error is \d.\de-\d$/),
      unable: 'no products',
      crashing: 'its process ended (status 5)',
      absent: 'no such library',
      uninstallable: 'npm install failed: offline',
    });
    expect(Object.keys(reasons(second))).toEqual(['wrong', 'absent', 'uninstallable']);

    const [right, , , , , , other] = first!;
    expect(right).toMatchObject({ peer: 'right', note: 'by hand' });
    expect(right!.error).toBeLessThan(1e-6);
    for (const { ms } of [right!, other!]) {
      expect(ms!.resident).toMatchObject({ samples: 3, median: expect.any(Number) });
      expect(ms!.call).toMatchObject({ samples: 3, median: expect.any(Number) });
    }
  });

  it('ends a peer that does not answer', { timeout: 60_000 }, async () => {
    const results = await compare({
      peers: [fake('right'), fake('silent')],
      cases: [product('first')],
      rounds: 1,
      folder,
      limitMs: 8_000,
      say: () => {},
      keep: () => {},
    });
    expect(results.cases[0]!.peers.map(({ reason }) => reason)).toEqual([undefined, 'no reply in 8 s']);
  });
});

describe('the tables', () => {
  const ms = (resident: number, call: number) => ({
    resident: { ...summarise([resident]), spread: 0.034 },
    call: summarise([call]),
  });
  const results: Results = {
    bench: 'peers',
    date: '2026-01-01T00:00:00.000Z',
    node: 'v20.20.2',
    cores: 2,
    rounds: 7,
    peers: {
      ours: { title: 'This one', description: '' },
      other: { title: 'Other', description: '' },
    },
    cases: [
      {
        id: 'gemm-512',
        flops: 2 * 512 ** 3,
        peers: [
          { peer: 'ours', error: 1e-6, ms: ms(2.684, 5) },
          { peer: 'other', error: 1e-6, disturbed: 1, ms: ms(26.84, 4) },
        ],
      },
      {
        id: 'unet',
        peers: [
          { peer: 'ours', error: 0, ms: ms(0.5, 1) },
          { peer: 'other', reason: 'it cannot' },
        ],
      },
    ],
  };

  it('has times, then rates and ratios, then reasons', () => {
    const lines = tablesOf(results).split('\n');
    expect(lines.slice(3, 8)).toEqual([
      'case      time of   This one   Other',
      'gemm-512  resident  2.68 ±3%   26.8 ±3%',
      'gemm-512  one call  5.00 ±0%   4.00 ±0%',
      'unet      resident  0.500 ±3%  -',
      'unet      one call  1.00 ±0%   -',
    ]);
    expect(lines.slice(11)).toEqual([
      'case      time of   This one      Other',
      'gemm-512  resident  100 GFLOP/s   10.0x',
      'gemm-512  one call  53.7 GFLOP/s  0.800x',
      'unet      resident  -             -',
      'unet      one call  -             -',
      '',
      'Other work on this machine disturbed 1 of 6 samples.',
      '',
      'Other: it cannot (unet)',
    ]);
  });
});

/** onnx 1.23.2, `helper.make_model(...).SerializeToString(deterministic=True)`. */
const GOLD = [
  '08083af2010a1f0a01780a01611201742204436f6e762a0e0a0470616473400140ac02a001070a3b0a01741201',
  '7922124d756c746948656164417474656e74696f6e2a100a096e756d5f68656164731804a001023a0d636f6d2e',
  '6d6963726f736f66740a300a017912017a2215496e7374616e63654e6f726d616c697a6174696f6e2a110a0765',
  '7073696c6f6e150000003fa0010112056d6f64656c2a130802080110014201614a080000803f000000402a1908',
  '0210074201734a10ffffffffffffffff2c010000000000005a140a0178120f0a0d080112090a0208010a0308ac',
  '0262130a017a120e0a0c080112080a0208020a02080142040a00101142110a0d636f6d2e6d6963726f736f6674',
  '1001',
].join('');

// Tests parts of `bench -- device` that need no device: the summary, and which kernel tests it runs.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { NO_TIME } from '../../bench/device/perf.ts';
import { report } from '../../bench/device/report.ts';
import { FILES } from '../../bench/device/test.ts';
import { timedResults } from '../../bench/device/timed-results.ts';
import { compareReports } from '../../src/bench/compare.ts';

const kernels = join(import.meta.dirname, '..', 'kernels');

it('the mode test runs every file of kernel tests that can run without Vitest', () => {
  const names = readdirSync(kernels).filter((name) => name.endsWith('.test.ts'));
  const runnable = names.filter(
    (name) => !readFileSync(join(kernels, name), 'utf8').includes("from 'vitest'"),
  );
  expect(Object.keys(FILES).sort()).toEqual(runnable.map((name) => name.replace('.test.ts', '')).sort());
});

const row = { skipped: 0, comparisons: 1, worst: 0.5, worstCase: '', milliseconds: 1, notRun: 8 };
const samples = [0.0125, 0.0121, 0.0123, 0.0124, 0.0122];
const timing = { ms: 0.0123, samples, wallMs: 1, clock: 'device', runs: 1, firstMs: 3, disturbed: true };
const entry = { op: 'linear', name: '64->64', family: 'tile' };
const unet = { precision: 'f16', flop: 1e12, weightMiB: 1640, activationMiB: 360 };

const RESULTS = {
  bench: 'device',
  start: { name: 'some card', description: 'vendor some card', family: 'tile' },
  support: {
    capabilities: { f16: true, timestamps: true, matrix: [{ M: 16, N: 16, K: 16 }] },
    families: { plain: true, subgroup: 'NoDeviceError: the subgroup family needs subgroups' },
  },
  test: {
    run: 2,
    total: 10,
    table: [
      {
        ...row,
        op: 'gemm',
        family: 'tile',
        cases: 2,
        passed: 1,
        failed: 1,
        worstError: 1e-6,
        worstBound: 2e-6,
      },
      { ...row, op: 'gemm', family: 'plain', cases: 0, passed: 0, failed: 0, worstError: 0, worstBound: 0 },
    ],
    failures: [{ op: 'gemm', family: 'tile', title: 'a > b', message: 'expected less than 1, got 2' }],
  },
  perf: {
    peak: { gflops: 47_403, matrixGflops: 641_778, gbytes: 4130, launch: { 'empty dispatch': 0.215 } },
    large: [
      { ...entry, timing, gflops: 1234.5, shareOfFlops: 0.026, gbytes: 99.5, shareOfBytes: 0.024 },
      { ...entry, name: '128->128', error: NO_TIME },
      { ...entry, name: '256->256', error: 'OutOfMemoryError: none left' },
    ],
    'large-matrix': [
      {
        ...entry,
        family: 'matrix',
        timing,
        gflops: 9876.5,
        shareOfFlops: 0.015,
        gbytes: 1,
        shareOfBytes: 1e-4,
      },
    ],
  },
  work: {
    unet: {
      name: 'SD 1.5 UNet',
      results: [
        { ...unet, batch: 4, ms: 80, samples: [80], gflops: 50_000, shareOfFlops: 0.08 },
        { ...unet, batch: 16, skipped: 'one run would take 9.0 s, and 2.0 s are left' },
      ],
    },
    models: {
      'fashion-mnist': { results: [{ batch: 16, precision: 'f32', ms: 1.131, runsPerSecond: 14_141 }] },
    },
    pipeline: [
      { model: 'fashion-mnist', batchSize: 128, imagesPerSecond: 755.4, idleShare: 0.37 },
      { model: 'cifar-10', factor: 1, error: 'Error: expected time for a second run, got none' },
    ],
    gradient: {
      error: 'the process ended with SIGSEGV',
      results: [{ batch: 64, gradientMs: 4.56, ratio: 3.19 }],
    },
  },
  firstLabel: [{ model: 'cifar-10', round: 0, firstLabelMs: 827.4, warmImagesMs: [8, 7.6] }],
};

it('the summary has the figures of every step, and says what is missing and why', () => {
  const text = report(RESULTS);
  expect(text).not.toMatch(/undefined|NaN|null/);
  const lines = text.split('\n').map((line) => line.trim().replace(/ {2,}/g, ' | '));
  for (const expected of [
    'some card: vendor some card; kernels of the family tile',
    'What it supports: f16 yes, timestamps yes, matrix units 16x16x16; families:',
    'plain: runs',
    'subgroup: NoDeviceError: the subgroup family needs subgroups',
    'gemm | tile | 1 | 1 | 0 | 8 | 1.0e-6 | 2.0e-6',
    'FAILED gemm tile: a > b: expected less than 1, got 2',
    'f32 in registers | 47403 GFLOP/s',
    'matrix units, f16 factors and f32 sums | 641778 GFLOP/s',
    'empty dispatch | 0.215 us',
    'linear 64->64 | tile | 0.0123* | 1235 | 2.6 % | 99.5 | 2.4 %',
    'linear 64->64 | matrix | 0.0123* | 9877 | 1.5 % | 1.00 | 0.0 %',
    'linear 256->256: OutOfMemoryError: none left',
    '1 cases did not fit into the remaining time',
    'SD 1.5 UNet | f16 | 4 | 80.0 | 20.0 | 50000 | 8.0 % | 2000',
    'SD 1.5 UNet, f16, batch 16: one run would take 9.0 s, and 2.0 s are left',
    'fashion-mnist | f32 | 16 | 1.13 | 14141 | - | -',
    'fashion-mnist | f32 | 128 | 755 | - | 37.0 %',
    'cifar-10: Error: expected time for a second run, got none',
    'gradient of 64 views: 4.56 ms, 3.19 times the forward pass',
    'first label of cifar-10, with nothing compiled before: 827 ms; of a later image: 7.60 ms',
    'Other work used the processor during 2 of 3 measurements (*), so these are too slow: repeat them.',
    'work.gradient: the process ended with SIGSEGV',
  ])
    expect(lines).toContain(expected);
  // Tests that did not run have no row.
  expect(lines.filter((line) => line.startsWith('gemm | plain'))).toEqual([]);
});

it('next to PyTorch, the summary has the times of both', () => {
  const torch = {
    ops: [{ id: 'linear 64->64', ms: { f32: 0.5, 'f32 channels_last': 0.25, f16: 'out of memory' } }],
    unets: [{ mode: 'f16', batch: 4, ms: 17.16, mebibytes: 1887 }],
    notes: [],
  };
  const lines = report({ ...RESULTS, torch })
    .split('\n')
    .map((line) => line.trim().replace(/ {2,}/g, ' | '));
  expect(lines).toContain('linear 64->64 | tile | 0.0123* | 1235 | 2.6 % | 99.5 | 2.4 % | 0.250 | - | -');
  expect(lines).toContain('PyTorch, SD 1.5 UNet | f16 | 4 | 17.2 | 4.29 | - | - | 1887');
});

it('the summary of a run that could not open a device is one line and the reason', () => {
  expect(report({ start: { error: 'NoDeviceError: no WebGPU device was found' } }).split('\n')).toEqual([
    'unknown device: ',
    '',
    'Not done:',
    '  start: NoDeviceError: no WebGPU device was found',
  ]);
});

it('two runs can be compared, case by case and family by family', () => {
  const report = (factor: number) => {
    const results = timedResults(RESULTS).map((result) =>
      result.name === 'linear 64->64'
        ? { ...result, samples: result.samples!.map((ms) => ms * factor) }
        : result,
    );
    return { bench: 'device', device: 'some card', families: ['tile', 'matrix'] as const, results };
  };
  const { differences, onlyOld, onlyNew } = compareReports(report(1), report(2), 0.05);
  expect(differences.map(({ name, family, change, verdict }) => [name, family, change, verdict])).toEqual([
    ['linear 64->64', 'tile', 1, 'slower'],
    ['linear 64->64', 'matrix', 1, 'slower'],
    ['SD 1.5 UNet, f16, batch 4', undefined, 0, 'same'],
  ]);
  expect([...onlyOld, ...onlyNew]).toEqual([]);
});

// Tests how a precision is chosen: what is demanded, what is remembered, and what a trial of both finds.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { NoDeviceError, UnsupportedError } from '../../src/errors.ts';
import { agreementOf, agrees } from '../../src/graph/evaluation/agreement.ts';
import { loadModel, openFiles } from '../../src/graph/models/open-model.ts';
import { choosePrecision, type PrecisionMemory } from '../../src/graph/models/precision-check.ts';
import { folderFiles } from '../../src/graph/node/folder-files.ts';
import { openModel } from '../../src/graph/node/open-model.ts';
import type { Capabilities } from '../../src/kernels/device/device.ts';
import { testDevice } from '../kernels/harness.ts';
import { fakeModel, hash } from '../pipeline/fake-model.ts';

const gpu = { f16: true, software: false, description: 'a GPU' } as Capabilities;

interface Trials {
  /** Milliseconds of a batch in f16; f32 takes 20. */
  readonly half?: number;
  /** Change of errors in f16, relative to the errors. */
  readonly change?: number;
  readonly fails?: boolean;
}

/** Returns how to open a fake model for a trial, and the precisions in which it was opened, in order. */
function trials({ half = 5, change = 0, fails = false }: Trials = {}) {
  const opened: string[] = [];
  let time = 0;
  const open = async (precision: 'f32' | 'f16') => {
    opened.push(precision);
    if (fails && precision === 'f16') throw new Error('a weight does not fit');
    return fakeModel({
      candidates: 3,
      inputShape: [1, 2, 2],
      numberOf: () => 0,
      errorOf: (_, candidate, level) => {
        const error = 0.5 + 0.1 * hash(candidate, level);
        return precision === 'f16' ? error * (1 + change * (hash(level, candidate, 7) - 0.5)) : error;
      },
      beforeBatch: () => {
        time += precision === 'f16' ? half : 20;
      },
    });
  };
  return { open, opened, now: () => time };
}

/** A memory that starts empty, and what was written to it. */
function memory(known?: 'f32' | 'f16'): PrecisionMemory & { readonly written: string[] } {
  const written: string[] = [];
  return {
    written,
    read: async () => known,
    write: async (device, precision) => void written.push(`${device}: ${precision}`),
  };
}

describe('choosing a precision', () => {
  it.each([
    ['auto is f16 if it is faster and agrees', {}, 'f16'],
    ['auto is f32 if f16 is not faster', { half: 40 }, 'f32'],
    ['auto is f32 if f16 changes errors', { change: 0.1 }, 'f32'],
    ['auto is f32 if the model cannot be opened in f16', { fails: true }, 'f32'],
  ] as const)('%s', async (_, setting, expected) => {
    const { open, opened, now } = trials(setting);
    const remembered = memory();
    expect(await choosePrecision('auto', gpu, remembered, open, now)).toBe(expected);
    expect(opened).toEqual(['f32', 'f16']);
    expect(remembered.written).toEqual(['a GPU: f32', `a GPU: ${expected}`]);
  });

  it.each([
    ['what is remembered', 'auto', gpu, memory('f16'), 'f16'],
    ['f32 without f16', 'auto', { ...gpu, f16: false }, memory('f16'), 'f32'],
    ['f32 on a device that computes in software', 'auto', { ...gpu, software: true }, memory('f16'), 'f32'],
    ['f32 without a memory', 'auto', gpu, undefined, 'f32'],
    ['what is demanded, f32', 'f32', gpu, memory('f16'), 'f32'],
    ['what is demanded, f16', 'f16', { ...gpu, software: true }, undefined, 'f16'],
  ] as const)('without a trial it is %s', async (_, choice, capabilities, remembered, expected) => {
    const { open, opened } = trials();
    expect(await choosePrecision(choice, capabilities, remembered, open)).toBe(expected);
    expect(opened).toEqual([]);
  });

  it('f16 is refused on a device without it', async () => {
    const chosen = choosePrecision('f16', { ...gpu, f16: false }, undefined, trials().open);
    await expect(chosen).rejects.toThrow(NoDeviceError);
    await expect(chosen).rejects.toThrow(
      'precision: expected a device with shader-f16 for f16, got a GPU; use auto or f32',
    );
  });
});

describe('agreement', () => {
  it('is that of differences between candidates of a view, by the weight of its level', () => {
    // Differences are 1 in both views; the second view changes it by 0.1, and counts twice.
    const { worst, change } = agreementOf([1, 2, 5, 6], [1, 2, 5, 6.1], [1, 2]);
    expect(change).toBeCloseTo(Math.sqrt(0.2 ** 2 / (1 + 4)), 12);
    expect(worst).toBeCloseTo(0.1 / 6, 12);
  });
  it('does not see what all candidates of a view have in common', () => {
    expect(agreementOf([1, 2], [1.001, 2.001], [1]).change).toBeCloseTo(0, 12);
  });
  it('is refused beyond the bounds, and for NaN', () => {
    expect(agrees({ worst: 2e-3, change: 0.05 })).toBe(true);
    expect(agrees({ worst: 2.1e-3, change: 0 })).toBe(false);
    expect(agrees({ worst: 0, change: 0.051 })).toBe(false);
    expect(agrees(agreementOf([1, 2], [1, Number.NaN], [1]))).toBe(false);
  });
  it('has no differences if there is one candidate', () => {
    expect(agreementOf([1, 2], [1.001, 2], [1, 1]).change).toBe(0);
  });
});

describe('opening a model', () => {
  const model = 'weights/fashion-mnist-multi-head';

  it('is f32 by default on a device that computes in software, with the bytes of f32', async ({ skip }) => {
    if (!(await testDevice()).capabilities.software) return skip('this device is a GPU');
    const errors = async (options: { readonly precision?: 'auto' | 'f32' }) => {
      const opened = await openModel(model, { slots: 1, batchSize: 11, ...options });
      expect(opened.precision).toBe('f32');
      opened.encode(0, new Float32Array(784).fill(0.25));
      const indices = new Uint32Array(11);
      const found = await opened.errors({
        slot: indices,
        candidate: indices.map((_, i) => i % opened.candidates.length),
        level: indices,
        noise: indices,
      });
      opened.close();
      return found;
    };
    expect(await errors({})).toEqual(await errors({ precision: 'f32' }));
  });

  it('in f16 says so and takes weights in f16', async ({ skip }) => {
    if (!(await testDevice()).capabilities.f16) return skip('this adapter has no f16');
    const opened = await openModel(model, { precision: 'f16', slots: 1, batchSize: 11 });
    expect(opened.precision).toBe('f16');
    opened.close();
    const { evaluation, close } = await loadModel(folderFiles(model), { precision: 'f16' });
    await close();
    expect(evaluation.weightDtype).toBe('f16');
  });

  it('in f16 is refused for an optimal denoiser, which auto opens in f32', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'optimal-'));
    const { writeSafetensors } = await import('../../src/graph/node/write-safetensors.ts');
    await writeSafetensors(join(folder, 'images.safetensors'), [
      [
        'images',
        { dtype: 'U8', shape: [2, 1, 2, 2], data: Uint8Array.from([0, 0, 0, 0, 255, 255, 255, 255]) },
      ],
      ['labels', { dtype: 'U8', shape: [2], data: Uint8Array.from([0, 1]) }],
    ]);
    writeFileSync(
      join(folder, 'config.json'),
      JSON.stringify({ _class_name: 'OptimalDenoiser', id2label: { 0: 'black', 1: 'white' } }),
    );
    const refused = openFiles(folderFiles(folder), { precision: 'f16' });
    await expect(refused).rejects.toThrow(UnsupportedError);
    await expect(refused).rejects.toThrow('expected precision auto or f32, got f16');
    rmSync(folder, { recursive: true });
  });
});

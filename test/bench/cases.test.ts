// Tests that the kernel benchmark covers every op and every routine of the kernels, and how a case of one's own is made.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BUILDERS } from '../../src/bench/builders.ts';
import { bytesOf } from '../../src/bench/case.ts';
import { benchCase, benchCases } from '../../src/bench/cases.ts';
import { titleOf } from '../../src/bench/time-case.ts';
import { type OpName, ops } from '../../src/graph/ops/table.ts';

const SRC = join(import.meta.dirname, '../../src');
const cases = benchCases();

describe('the cases of the kernel benchmark', () => {
  it.each(Object.keys(ops))('time the op %s', (op) => {
    expect(cases.filter((one) => one.op === op).length).toBeGreaterThan(0);
  });

  it('include every routine of src/kernels, because an op or another routine uses it', () => {
    const sources = (folder: string) =>
      readdirSync(join(SRC, folder), { recursive: true, encoding: 'utf8' })
        .filter((file) => file.endsWith('.ts'))
        .map((file) => ({
          file: `${folder}/${file}`,
          text: readFileSync(join(SRC, folder, file), 'utf8'),
        }));
    const users = [...sources('graph/ops'), ...sources('kernels')];
    const routines = sources('kernels').flatMap(({ file, text }) =>
      [...text.matchAll(/export (?:const|function) (\w+)(?: = )?\([^;]*?\): Routine\b/g)].map((match) => ({
        file,
        name: match[1]!,
      })),
    );
    expect(routines.length).toBeGreaterThan(45);
    const unused = routines.filter(
      ({ file, name }) =>
        !users.some((user) => user.file !== file && new RegExp(`\\b${name}\\b`).test(user.text)),
    );
    expect(unused).toEqual([]);
  });

  it('have names of their own', () => {
    expect(new Set(cases.map(titleOf)).size).toBe(cases.length);
  });

  it('count the operations of the definition', () => {
    const conv2d = benchCase('conv2d', [128, 8, 32, 32], { channels: 256 });
    expect(conv2d.flops).toBe(2 * 256 * 128 * 9 * 8 * 32 * 32);
    const linear = benchCase('linear', [512, 1, 1, 512], { bias: false });
    expect(linear.flops).toBe(2 * 512 ** 3);
    expect(bytesOf(linear)).toBe(4 * 3 * 512 * 512);
    expect(benchCase('add', [16, 128, 28, 28]).flops).toBe(0);
  });
});

describe('a case of a given shape', () => {
  it.each(Object.keys(BUILDERS) as OpName[])('can be made for %s with the defaults alone', (op) => {
    const { activations } = benchCase(op, [16, 4, 8, 8]);
    for (const shape of Object.values(activations)) for (const side of shape) expect(side).toBeGreaterThan(0);
  });

  it('keeps the size of an image with an odd kernel and stride 1, and halves it with stride 2', () => {
    expect(benchCase('conv2d', [3, 2, 9, 7], { kernel: [5, 3] }).activations.y).toEqual([3, 2, 9, 7]);
    expect(benchCase('conv2d', [3, 2, 8, 8], { stride: 2, channels: 5 }).activations.y).toEqual([5, 2, 4, 4]);
  });

  it('has the shapes of all fused operands', () => {
    const options = { affine: 'silu', embedding: true, residual: true, channels: 8, stride: 2 } as const;
    const { activations, constants } = benchCase('conv2d', [4, 2, 10, 10], options);
    expect(activations).toMatchObject({
      affine: [8, 2, 1, 1],
      embedding: [8, 2, 1, 1],
      residual: [8, 2, 5, 5],
      y: [8, 2, 5, 5],
    });
    expect(constants).toEqual({ weight: 8 * 4 * 9, bias: 8 });
  });

  it('divides the channels of an attention among heads, with other tokens as keys if asked', () => {
    expect(benchCase('attention', [320, 2, 8, 8], { heads: 8, keys: 77 })).toMatchObject({
      name: '8x40 heads, n=2, 64 queries of 77 keys',
      activations: { q: [320, 2, 1, 64], k: [320, 2, 1, 77] },
    });
    expect(benchCase('attentionGradient', [64, 1, 1, 9]).activations.y).toEqual([192, 1, 1, 9]);
    expect(benchCase('attentionGradient', [64, 1, 1, 9], { keys: 5 }).activations.y).toEqual([64, 1, 1, 9]);
  });

  it('is refused if the op does not accept it', () => {
    expect(() => benchCase('depthToSpace', [3, 1, 4, 4])).toThrow('depthToSpace: expected a multiple of 4');
    expect(() => benchCase('attention', [10, 1, 1, 4], { heads: 3 })).toThrow('expected a multiple of 3');
    expect(() => benchCase('groupNorm', [10, 1, 4, 4], { groups: 3 })).toThrow('expected a multiple of 3');
  });
});

// Tests the strength of the attacks: on an undefended network they are as strong as APGD in PyTorch.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { openSafetensors } from '../../../src/graph/node/open-safetensors.ts';
import { attackImage } from '../../../src/pipeline/attacking/attack.ts';
import { type AttackName, attackOf } from '../../../src/pipeline/attacking/attacks.ts';
import type { Defended } from '../../../src/pipeline/attacking/defended.ts';
import { argmax, crossEntropy, dlr, targetedDlr } from '../../../src/pipeline/attacking/losses.ts';
import { readRecords } from '../../../src/pipeline/node/record-files.ts';
import { distance, type Norm } from '../../../src/pipeline/norms.ts';
import { smallNet } from '../../reference/smallnet.ts';

const FOLDER = join(import.meta.dirname, '../../golden/apgd');
const GOLDEN: {
  readonly images: number;
  readonly steps: number;
  readonly clean: number;
  readonly targets: readonly number[];
  readonly cases: readonly { attack: AttackName; norm: Norm; eps: number; robust: number }[];
} = JSON.parse(readFileSync(join(FOLDER, 'robust.json'), 'utf8'));

const tensors = new Map<string, Float32Array>();
const images: { readonly x: Float64Array; readonly label: number }[] = [];
let net: Defended;

beforeAll(async () => {
  const file = await openSafetensors(join(FOLDER, 'net.safetensors'));
  for (const name of file.tensors.keys()) tensors.set(name, await file.readF32(name));
  await file.close();
  for await (const { label, pixels } of readRecords(join(FOLDER, 'images-idx3-ubyte.gz')))
    images.push({ x: Float64Array.from(pixels.data, (byte) => byte / 255), label });
  net = smallNet((name) => tensors.get(name)!);
});

describe('the small network is the one that was trained', () => {
  test('logits of all images, and the clean accuracy', async () => {
    const expected = tensors.get('logits')!;
    let right = 0;
    for (const [i, { x, label }] of images.entries()) {
      const logits = await net.logits(x, 0);
      for (let c = 0; c < 10; c++) expect(Math.abs(logits[c]! - expected[10 * i + c]!)).toBeLessThan(1e-4);
      if (argmax(logits) === label) right++;
    }
    expect(images).toHaveLength(GOLDEN.images);
    expect(right).toBe(GOLDEN.clean);
  });

  test.each([
    ['ce', (label: number) => crossEntropy(label)],
    ['dlr', (label: number) => dlr(label)],
    ['targetedDlr', (label: number, i: number) => targetedDlr(label, GOLDEN.targets[i]!)],
  ] as const)('%s and its gradient with regard to the image', async (name, lossOf) => {
    for (let i = 0; i < 3; i++) {
      const { x, label } = images[i]!;
      const loss = lossOf(label, i);
      let value = 0;
      const { gradient } = await net.gradient!(x, 0, (logits) => {
        const made = loss(logits);
        value = made.value;
        return made.gradient;
      });
      const expected = tensors.get(`gradient.${name}`)!.subarray(784 * i, 784 * (i + 1));
      const most = expected.reduce((max, v) => Math.max(max, Math.abs(v)), 0);
      expect(Math.abs(value - tensors.get(`loss.${name}`)![i]!)).toBeLessThan(1e-5);
      for (let k = 0; k < 784; k++)
        expect(Math.abs(gradient[k]! - expected[k]!)).toBeLessThanOrEqual(1e-4 * most + 1e-7);
    }
  });
});

/** Counts the golden images that are still classified correctly after an attack. Misclassified ones are not attacked. */
async function robust(attack: AttackName, norm: Norm, eps: number): Promise<number> {
  let held = 0;
  for (const [i, { x, label }] of images.entries()) {
    const { broken, x: found } = await attackImage(
      net,
      { x, label, key: `${i}` },
      {
        attack: attackOf(attack, { steps: GOLDEN.steps }, net.classes),
        name: attack,
        restarts: attack === 'apgd-t' ? 9 : 1,
        seed: 0,
        norm,
        eps,
        eot: 1,
        randomness: 'known',
        verify: async (point) => argmax(await net.logits(point, 0)) !== label,
      },
    );
    if (!broken) held++;
    expect(distance(norm, found, x)).toBeLessThanOrEqual(eps + 1e-9);
  }
  return held;
}

/** The whole table if ALL_CASES is set (takes minutes), else the quick and most informative cases. */
const quick: readonly string[] = ['apgd-ce linf 8', 'apgd-dlr l2 128'];
const nameOf = ({ attack, norm, eps }: { attack: string; norm: string; eps: number }) =>
  `${attack} ${norm} ${Math.round(eps * 255)}`;

describe('robust accuracy equals that of PyTorch, within one point', () => {
  const cases = GOLDEN.cases.filter((one) => process.env.ALL_CASES || quick.includes(nameOf(one)));
  test.each(cases)('$attack $norm $eps: $robust of 200', { timeout: 600_000 }, async (one) => {
    const held = await robust(one.attack, one.norm, one.eps);
    if (process.env.ALL_CASES) console.log(nameOf(one), held, one.robust);
    expect(Math.abs(held - one.robust)).toBeLessThanOrEqual(GOLDEN.images / 100);
  });

  test('the table has hard cases', () => {
    expect(cases.length).toBeGreaterThanOrEqual(quick.length);
    for (const { robust: left } of cases) expect(left).toBeLessThan(GOLDEN.clean);
  });
});

// The kappa of a model's card is a measurement. It is valid only for the loss, the levels and the weights with which
// it was measured: with others the sequential strategy would drop classes with an unknown probability of error.

import { describe, expect, test } from 'vitest';
import type { Level } from '../../src/graph/model.ts';
import { type LoadOptions, loadModel } from '../../src/graph/models/open-model.ts';
import { modelFiles } from '../../src/graph/node/model-source.ts';

const CARD = { 'fashion-mnist': 0.00515, 'fashion-mnist-multi-head': 0.0416 } as const;

async function kappaOf(name: string, options: LoadOptions = {}): Promise<number | undefined> {
  const { evaluation, close } = await loadModel(await modelFiles(name), options);
  await close();
  return evaluation.kappa;
}

/** Changes the model's own levels. */
const changed =
  (change: (levels: readonly Level[]) => readonly Level[]): NonNullable<LoadOptions['levels']> =>
  ({ levels }) =>
    change(levels);

describe.each(Object.entries(CARD))('%s', (name, kappa) => {
  test('has the kappa of its card, with its own levels in any order, and with some of them', async () => {
    expect(await kappaOf(name)).toBe(kappa);
    expect(await kappaOf(name, { distance: 'l2' })).toBe(kappa);
    expect(await kappaOf(name, { levels: changed((levels) => [...levels].reverse()) })).toBe(kappa);
    expect(await kappaOf(name, { levels: changed((levels) => levels.slice(3, 9)) })).toBe(kappa);
  });

  test.each<[what: string, options: LoadOptions]>([
    ['the loss l1', { distance: 'l1' }],
    ['the loss huber', { distance: 'huber' }],
    ['one more level', { levels: changed((levels) => [...levels, { t: 901, weight: 1 }]) }],
    ['another level', { levels: changed(([first, ...rest]) => [{ ...first!, t: 950 }, ...rest]) }],
    [
      'another weight',
      { levels: changed(([first, ...rest]) => [{ ...first!, weight: 2 * first!.weight }, ...rest]) },
    ],
    ['equal weights', { levels: changed((levels) => levels.map((level) => ({ ...level, weight: 1 }))) }],
  ])('has none under %s', async (_, options) => {
    expect(await kappaOf(name, options)).toBeUndefined();
  });
});

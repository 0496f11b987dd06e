import { describe, expect, it } from 'vitest';
import {
  ascending,
  bitReversed,
  evenTimesteps,
  linspace,
  parseGrid,
} from '../../src/pipeline/deciding/levels.ts';
import { weigh } from '../../src/pipeline/deciding/weighting.ts';
import { UsageError } from '../../src/pipeline/errors.ts';

describe('grids', () => {
  it('even: the published timesteps', () => {
    const pets = evenTimesteps(250, 1000);
    expect([pets[0], pets[1], pets.at(-1), pets.length]).toEqual([2, 6, 998, 250]);
    const cifar = evenTimesteps(500, 1000);
    expect([cifar[0], cifar[1], cifar.at(-1), cifar.length]).toEqual([1, 3, 999, 500]);
    expect(evenTimesteps(1, 1000)).toEqual([500]);
    expect(evenTimesteps(1000, 1000).at(-1)).toBe(999);
    // 3 does not divide 10: step 3, start 1
    expect(evenTimesteps(3, 10)).toEqual([1, 4, 7]);
  });

  it('linspace includes both ends exactly', () => {
    const grid = linspace(1e-4, 3, 126);
    expect([grid.length, grid[0], grid.at(-1)]).toEqual([126, 1e-4, 3]);
    expect(linspace(0.5, 0.5, 1)).toEqual([0.5]);
  });

  it('are read as the command line writes them', () => {
    expect(parseGrid('even:2', 1000)).toEqual({ t: [250, 750] });
    expect(parseGrid('linspace:1:2:3')).toEqual({ sigma: [1, 1.5, 2] });
    expect(parseGrid('linspace:1:2:3:left')).toEqual({ sigma: [1, 1.5] });
  });

  it.each(['even:0', 'even:1001', 'even:2.5', 'even:', 'even:1:2', 'odd:3', '', 'linspace:1:2'])(
    'refuses "%s"',
    (text) => expect(() => parseGrid(text, 1000)).toThrow(UsageError),
  );

  it.each([
    'even:10',
    'linspace:2:1:3',
    'linspace:0:1:3',
    'linspace:1:2:1',
    'linspace:1::3',
    'linspace:a:2:3',
  ])('refuses "%s" where there are no timesteps, or the numbers make no grid', (text) =>
    expect(() => parseGrid(text)).toThrow(UsageError),
  );
});

describe('visiting orders', () => {
  it('bit-reversed: the textbook order for powers of two', () => {
    expect(bitReversed(8)).toEqual([0, 4, 2, 6, 1, 5, 3, 7]);
    expect(bitReversed(8, 0.5)).toEqual([4, 0, 6, 2, 5, 1, 7, 3]);
  });

  it.each([1, 2, 3, 5, 10, 23, 24, 125, 1000])('visits each of %d levels once', (count) => {
    for (const first of [0, 0.3, 0.5]) {
      const order = bitReversed(count, first);
      expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, i) => i));
    }
  });

  it('ascending: by timestep or sigma, whatever order they come in', () => {
    expect(ascending([{ t: 30 }, { t: 10 }, { t: 20 }])).toEqual([1, 2, 0]);
    expect(ascending([{ sigma: 3 }, { sigma: 0.1 }])).toEqual([1, 0]);
  });
});

describe('weightings', () => {
  const sigmas = linspace(1e-4, 3, 126).slice(0, -1);
  const grid = sigmas.map((sigma) => ({ sigma }));

  /** The sigma below which a fraction of the weight of normalised (noise-space) losses lies. */
  const quantile = (weights: readonly number[], fraction: number): number => {
    const normalised = weights.map((w, i) => (w * (sigmas[i]! * 0.5) ** 2) / (sigmas[i]! ** 2 + 0.25));
    const total = normalised.reduce((a, b) => a + b, 0);
    let sum = 0;
    let at = -1;
    while (sum < fraction * total) sum += normalised[++at]!;
    return sigmas[at]!;
  };

  it('rdc-code and lognormal have the quantiles that were measured of them', () => {
    for (const [name, quantiles] of [
      ['rdc-code', [0.07, 0.3, 1.16]],
      ['lognormal', [0.04, 0.29, 1.67]],
    ] as const) {
      const weights = weigh(name, grid);
      [0.05, 0.5, 0.95].forEach((f, i) => {
        expect(Math.abs(quantile(weights, f) - quantiles[i]!), `${name} at ${f}`).toBeLessThan(0.03);
      });
    }
  });

  it('uniform and elbo', () => {
    expect(weigh('uniform', [{ t: 5 }, { t: 9 }])).toEqual([1, 1]);
    expect(weigh('elbo', [{ sigma: 1 }, { sigma: 2 }])).toEqual([1, 1 / 8]);
    expect(weigh('elbo', [{ sigma: 2 }, { sigma: 1 }], { errorOf: 'eps' })).toEqual([1 / 2, 1]);
  });

  it('take weights one by one', () => {
    expect(weigh([0, 2], [{ t: 5 }, { t: 9 }])).toEqual([0, 2]);
  });

  it.each([
    ['an unknown name', 'min-snr', [{ sigma: 1 }]],
    ['a name of the prototype', 'toString', [{ sigma: 1 }]],
    ['sigmas that are not there', 'elbo', [{ t: 1 }]],
    ['too few weights', [1], [{ t: 1 }, { t: 2 }]],
    ['negative weights', [1, -1], [{ t: 1 }, { t: 2 }]],
    ['nothing but zeros', [0, 0], [{ t: 1 }, { t: 2 }]],
  ] as const)('refuses %s', (_, weighting, levels) => {
    expect(() => weigh(weighting, levels)).toThrow(UsageError);
  });
});

import { describe, expect, it } from 'vitest';
import { UsageError } from '../../src/errors.ts';
import { importanceLevels, rdcLevels } from '../../src/graph/sigmas.ts';
import { bitReversed, gridShare, visitingOrder } from '../../src/graph/visiting.ts';
import {
  ascending,
  evenTimesteps,
  type ImportanceGrid,
  linspace,
  parseGrid,
  type SigmaGrid,
} from '../../src/pipeline/deciding/levels.ts';
import { sigmaLevels, weigh } from '../../src/pipeline/deciding/weighting.ts';

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

  it('are parsed from texts of the command line', () => {
    expect(parseGrid('even:2', 1000)).toEqual({ t: [250, 750] });
    expect(parseGrid('linspace:1:2:3')).toEqual({ sigma: [1, 1.5, 2], intervals: true });
    expect(parseGrid('linspace:1:2:3:left')).toEqual({ sigma: [1, 1.5] });
    expect(parseGrid('0.5, 2,1e-1')).toEqual({ sigma: [0.1, 0.5, 2] });
    expect(parseGrid('importance:42')).toEqual({ importance: 42, range: [1e-4, 3] });
    expect(parseGrid('importance:0.1:2:8')).toEqual({ importance: 8, range: [0.1, 2] });
  });

  it.each(['even:0', 'even:1001', 'even:2.5', 'even:', 'even:1:2', 'odd:3', '', 'linspace:1:2'])(
    'rejects "%s"',
    (text) => expect(() => parseGrid(text, 1000)).toThrow(UsageError),
  );

  it.each([
    'even:10',
    'linspace:2:1:3',
    'linspace:0:1:3',
    'linspace:1:2:1',
    'linspace:1::3',
    'linspace:a:2:3',
    'linspace:1:1:1:left',
    'importance:0',
    'importance:2.5',
    'importance:2:1:8',
    'importance:8:left',
    '0.1,0.1',
    '0.1,,0.2',
    '0.1,-1',
    '0',
    'big',
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

  it('by mass: visit each level once, for unequal shares', () => {
    // A level with half of the mass comes first; levels without mass come last.
    const shares = [0, 1, 1, 8, 1, 1, 0, 4];
    const order = visitingOrder(shares);
    expect([...order].sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    // 1/4, 3/4, 1/2, 0 of the mass, then eighths: ends at 0, 1/16, 2/16, 10/16, 11/16, 12/16, 12/16, 1.
    expect(order.slice(0, 3)).toEqual([3, 7, 1]);
    expect(order.slice(-2)).toEqual([0, 6]);
    expect(visitingOrder([5, 5, 5, 5])).toEqual(visitingOrder(4));
    expect(visitingOrder([0, 0, 0])).toEqual(visitingOrder(3));
  });

  it("by mass: a quarter of RDC's levels has most of the mass", () => {
    const shares = rdcLevels().map(gridShare);
    const total = shares.reduce((a, b) => a + b, 0);
    const first = (order: readonly number[]) =>
      order.slice(0, 31).reduce((sum, l) => sum + shares[l]!, 0) / total;
    expect(first(visitingOrder(shares))).toBeGreaterThan(0.6);
    expect(first(visitingOrder(shares.length))).toBeLessThan(0.35);
  });

  it('ascending: by timestep or sigma, from any order', () => {
    expect(ascending([{ t: 30 }, { t: 10 }, { t: 20 }])).toEqual([1, 2, 0]);
    expect(ascending([{ sigma: 3 }, { sigma: 0.1 }])).toEqual([1, 0]);
  });
});

describe('weightings', () => {
  const sigmas = linspace(1e-4, 3, 126).slice(0, -1);
  const grid = sigmas.map((sigma) => ({ sigma }));

  /** Returns the sigma below which a fraction of the weight of normalised (noise-space) losses lies. */
  const quantile = (weights: readonly number[], fraction: number): number => {
    const normalised = weights.map((w, i) => (w * (sigmas[i]! * 0.5) ** 2) / (sigmas[i]! ** 2 + 0.25));
    const total = normalised.reduce((a, b) => a + b, 0);
    let sum = 0;
    let at = -1;
    while (sum < fraction * total) sum += normalised[++at]!;
    return sigmas[at]!;
  };

  it('rdc-code and lognormal have the measured quantiles', () => {
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

  it('a grid of one sigma is a level, also if its last sigma ends the integral', () => {
    const [level, ...more] = sigmaLevels({ sigma: [2], intervals: true }, 'elbo');
    expect([level!.sigma, more.length]).toEqual([2, 0]);
    expect(level!.weight).toBe(weigh('elbo', [{ sigma: 2 }])[0]);
    expect(sigmaLevels({ sigma: [2], intervals: true }, [5])).toEqual([{ sigma: 2, weight: 5 }]);
  });

  it('the last sigma of a grid ends the integral, or is a level like the others', () => {
    const sigmas = (text: string, weighting: string | number[]) =>
      sigmaLevels(parseGrid(text) as SigmaGrid, weighting).map(({ sigma, weight }) => [sigma, weight]);
    expect(sigmas('linspace:1:3:3', 'elbo')).toEqual([
      [1, 1],
      [2, 1 / 8],
    ]);
    expect(sigmas('linspace:1:3:3', 'uniform')).toEqual([
      [1, 1],
      [2, 1],
      [3, 1],
    ]);
    expect(sigmas('linspace:1:3:3', [5, 6, 7]).map(([, weight]) => weight)).toEqual([5, 6, 7]);
    expect(sigmas('linspace:1:3:3:left', 'elbo')).toEqual(sigmas('linspace:1:3:3', 'elbo'));
    // A list is levels only: 2 to 4, and for 4 the same again.
    expect(sigmas('4,1,2', 'elbo')).toEqual([
      [1, 1],
      [2, 2 / 8],
      [4, 2 / 64],
    ]);
    expect(sigmaLevels(parseGrid('linspace:1e-4:3:126') as SigmaGrid, 'rdc-code')).toEqual(rdcLevels());
  });

  it('importance-placed sigmas need a density', () => {
    const grid = parseGrid('importance:5') as ImportanceGrid;
    expect(sigmaLevels(grid, 'lognormal')).toEqual(importanceLevels(5, 'lognormal'));
    expect(() => sigmaLevels(grid, 'uniform')).toThrow(
      'importance: expected a weighting that sigmas can be placed by, rdc-code, lognormal, elbo; got "uniform"',
    );
    expect(() => sigmaLevels(grid, [1, 2, 3, 4, 5])).toThrow('got a list of weights');
  });

  it('may be a list of weights', () => {
    expect(weigh([0, 2], [{ t: 5 }, { t: 9 }])).toEqual([0, 2]);
  });

  it('importance-placed sigmas are placed with the statistics of the data, in the range of the grid', () => {
    const grid = parseGrid('importance:0.1:2:5') as ImportanceGrid;
    const statistics = { pMean: -2, pStd: 0.75 };
    const found = sigmaLevels(grid, 'lognormal', statistics);
    expect(found).toEqual(importanceLevels(5, 'lognormal', { ...statistics, range: [0.1, 2] }));
    expect(found).not.toEqual(importanceLevels(5, 'lognormal', { range: [0.1, 2] }));
    expect(found).not.toEqual(importanceLevels(5, 'lognormal', statistics));
  });

  const NAMES = 'uniform, rdc-code, lognormal, elbo';
  it.each([
    ['an unknown name', 'min-snr', [{ sigma: 1 }], `expected a weighting ${NAMES}, got "min-snr"`],
    [
      'a property of the prototype',
      'toString',
      [{ sigma: 1 }],
      `expected a weighting ${NAMES}, got "toString"`,
    ],
    ['missing sigmas', 'elbo', [{ t: 1 }], 'weighting "elbo" needs sigmas; this grid has timesteps'],
    ['too few weights', [1], [{ t: 1 }, { t: 2 }], 'expected 2 weights, one per level of the grid, got 1'],
    [
      'negative weights',
      [1, -1],
      [{ t: 1 }, { t: 2 }],
      'expected weights that are finite and not negative, got -1',
    ],
    [
      'infinity',
      [1, Number.POSITIVE_INFINITY],
      [{ t: 1 }, { t: 2 }],
      'finite and not negative, got Infinity',
    ],
    ['only zeros', [0, 0], [{ t: 1 }, { t: 2 }], 'expected a weight above 0 in the grid, got only zeros'],
  ] as const)('refuses %s', (_, weighting, levels, message) => {
    expect(() => weigh(weighting, levels)).toThrow(UsageError);
    expect(() => weigh(weighting, levels)).toThrow(message);
  });
});

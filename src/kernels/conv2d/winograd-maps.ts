// Winograd's maps in one dimension, F(m, 3): m outputs of a kernel of 3 from m + 2 products.
//
//   y = Aᵀ [ (G g) ∘ (Bᵀ d) ]   for m outputs y, weights g and the m + 2 inputs d under them
//
// See Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (2016). Each product is the value of
// a polynomial at a point. In two dimensions the maps are applied to rows and columns.

import { ceilDiv } from '../device/kernel.ts';
import { lines } from './conv2d-tiles.ts';

export interface Maps {
  /** m, the outputs along one side of a tile. */
  readonly size: 4 | 7;
  readonly G: readonly (readonly number[])[];
  /** WGSL for Bᵀ d of the values named by `d`, into `to`0..m+1. */
  readonly forward: (d: (i: number) => string, to: string) => string;
  /** WGSL for Aᵀ v of the values named by `v`, into `to`0..m-1. */
  readonly backward: (v: (i: number) => string, to: string) => string;
  /** WGSL for A y of the m values named by `y`, into `to`0..m+1: the transpose of `backward`, for gradients. */
  readonly spread: (y: (i: number) => string, to: string) => string;
}

/** F(4, 3), with the points 0, ±1, ±2, ∞. Errors are 2e-6 of the outputs' standard deviation for 96 channels. */
export const F4: Maps = {
  size: 4,
  G: [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
  ],
  forward: (d, to) => `
  let ${to}a = ${d(4)} - 4 * ${d(2)};
  let ${to}b = ${d(3)} - 4 * ${d(1)};
  let ${to}c = ${d(4)} - ${d(2)};
  let ${to}d = 2 * (${d(3)} - ${d(1)});
  let ${to}0 = 4 * (${d(0)} - ${d(2)}) + ${to}c;
  let ${to}1 = ${to}a + ${to}b;
  let ${to}2 = ${to}a - ${to}b;
  let ${to}3 = ${to}c + ${to}d;
  let ${to}4 = ${to}c - ${to}d;
  let ${to}5 = ${d(5)} - ${d(3)} - 2 * ${to}d;`,
  backward: (v, to) => `
  let ${to}a = ${v(1)} + ${v(2)};
  let ${to}b = ${v(1)} - ${v(2)};
  let ${to}c = ${v(3)} + ${v(4)};
  let ${to}d = ${v(3)} - ${v(4)};
  let ${to}0 = ${v(0)} + ${to}a + ${to}c;
  let ${to}1 = ${to}b + 2 * ${to}d;
  let ${to}2 = ${to}a + 4 * ${to}c;
  let ${to}3 = ${to}b + 8 * ${to}d + ${v(5)};`,
  spread: (y, to) => `
  let ${to}a = ${y(0)} + ${y(2)};
  let ${to}b = ${y(1)} + ${y(3)};
  let ${to}c = ${y(0)} + 4 * ${y(2)};
  let ${to}d = 2 * ${y(1)} + 8 * ${y(3)};
  let ${to}0 = ${y(0)};
  let ${to}1 = ${to}a + ${to}b;
  let ${to}2 = ${to}a - ${to}b;
  let ${to}3 = ${to}c + ${to}d;
  let ${to}4 = ${to}c - ${to}d;
  let ${to}5 = ${y(3)};`,
};

/**
 * Points p of F(7, 3), each with its negative, and ∞. Of all pairs of multiples of 1/8 these lose the fewest digits:
 * errors are 8e-6 of the outputs' standard deviation for 96 channels; the points 0, ±1/2, ±1, ±2 and 4 give 4e-5.
 */
const POINTS = [1 / 4, 5 / 8, 9 / 8, 9 / 4] as const;

/** Returns the coefficients, lowest first, of the product of x - r over the roots r. */
function fromRoots(roots: readonly number[]): number[] {
  let product = [1];
  for (const r of roots) product = [...product, 0].map((c, i) => (product[i - 1] ?? 0) - r * c);
  return product;
}

/** Returns the squares of all points but p. */
const others = (p: number): number[] => POINTS.filter((q) => q !== p).map((q) => q * q);

const sum = (factors: readonly number[], value: (i: number) => string): string =>
  factors.map((factor, i) => (factor === 1 ? value(i) : `${factor} * ${value(i)}`)).join(' + ');

/** F(7, 3): 81 products per 7x7 tile, which is 1.65 per pixel; F(4, 3) takes 2.25. */
export const F7: Maps = {
  size: 7,
  // The denominator at p is the product of p - q over all other points q, -p among them.
  G: [
    ...POINTS.flatMap((p) =>
      [p, -p].map((x) => {
        const scale = 1 / (2 * x * others(p).reduce((product, square) => product * (p * p - square), 1));
        return [scale, scale * x, scale * x * x];
      }),
    ),
    [0, 0, 1],
  ],
  // The product over the other pairs is even in x, so the values at p and -p share its sums over odd and even inputs.
  forward: (d, to) =>
    POINTS.map((p, k) => {
      const factors = fromRoots(others(p));
      return `
  let ${to}odd${k} = ${sum(factors, (i) => d(2 * i + 1))};
  let ${to}even${k} = ${p} * (${sum(factors, (i) => d(2 * i))});
  let ${to}${2 * k} = ${to}odd${k} + ${to}even${k};
  let ${to}${2 * k + 1} = ${to}odd${k} - ${to}even${k};`;
    }).join('') +
    `
  let ${to}8 = ${sum(fromRoots(POINTS.map((p) => p * p)), (i) => d(2 * i))};`,
  backward: (v, to) =>
    POINTS.map(
      (_, k) => `
  let ${to}even${k} = ${v(2 * k)} + ${v(2 * k + 1)};
  let ${to}odd${k} = ${v(2 * k)} - ${v(2 * k + 1)};`,
    ).join('') +
    lines(7, (j) => {
      const factors = POINTS.map((p) => p ** j);
      return `let ${to}${j} = ${sum(factors, (k) => `${to}${j % 2 === 0 ? 'even' : 'odd'}${k}`)}${j === 6 ? ` + ${v(8)}` : ''};`;
    }),
  spread: (y, to) =>
    POINTS.map((p, k) => {
      const powers = (from: number): readonly number[] =>
        Array.from({ length: ceilDiv(7 - from, 2) }, (_, i) => p ** (2 * i + from));
      return `
  let ${to}even${k} = ${sum(powers(0), (i) => y(2 * i))};
  let ${to}odd${k} = ${sum(powers(1), (i) => y(2 * i + 1))};
  let ${to}${2 * k} = ${to}even${k} + ${to}odd${k};
  let ${to}${2 * k + 1} = ${to}even${k} - ${to}odd${k};`;
    }).join('') +
    `
  let ${to}8 = ${y(6)};`,
};

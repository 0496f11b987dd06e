// Statistics: running moments, the normal distribution and Student's t, and their quantiles.

/** Count, mean and sum of squared deviations of the values seen so far. */
export interface Moments {
  readonly count: number;
  readonly mean: number;
  readonly m2: number;
}

/** Moments of no values. */
export const noMoments: Moments = { count: 0, mean: 0, m2: 0 };

/** Adds a value to moments (Welford 1962: no cancellation, whatever the mean). */
export function withValue({ count, mean, m2 }: Moments, value: number): Moments {
  const delta = value - mean;
  const next = mean + delta / (count + 1);
  return { count: count + 1, mean: next, m2: m2 + delta * (value - next) };
}

/** Returns the moments of some values. */
export const momentsOf = (values: Iterable<number>): Moments => {
  let moments = noMoments;
  for (const value of values) moments = withValue(moments, value);
  return moments;
};

/** Returns the unbiased variance; NaN for fewer than two values. */
export const variance = ({ count, m2 }: Moments): number => (count > 1 ? m2 / (count - 1) : Number.NaN);

/**
 * Returns ln Gamma(x) for x > 0 by Stirling's series, after raising the argument above 12; relative error near 1e-15.
 */
export function logGamma(x: number): number {
  let shift = 0;
  let z = x;
  for (; z < 12; z++) shift += Math.log(z);
  const r = 1 / (z * z);
  const series = (1 / 12 - r * (1 / 360 - r * (1 / 1260 - r * (1 / 1680 - r / 1188)))) / z;
  return (z - 0.5) * Math.log(z) - z + 0.5 * Math.log(2 * Math.PI) + series - shift;
}

/**
 * Returns the regularised incomplete beta function I_x(a, b), x in [0, 1], by its continued fraction
 * (evaluated with Lentz's method on the side where it converges quickly).
 */
export function incompleteBeta(x: number, a: number, b: number): number {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(1 - x, b, a);
  const front = Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x));
  const away = (v: number): number => (Math.abs(v) < 1e-300 ? 1e-300 : v);
  let c = 1;
  let d = 1 / away(1 - ((a + b) * x) / (a + 1));
  let fraction = d;
  for (let m = 1; m <= 2000; m++) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / away(1 + even * d);
    c = away(1 + even / c);
    fraction *= c * d;
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / away(1 + odd * d);
    c = away(1 + odd / c);
    fraction *= c * d;
    if (Math.abs(c * d - 1) < 1e-15) break;
  }
  return (front * fraction) / a;
}

/**
 * Returns the upper tail P(T > t) of Student's t with `df` degrees of freedom (not necessarily an integer), `df` > 0.
 */
export function studentTail(t: number, df: number): number {
  if (!Number.isFinite(df)) return normalTail(t);
  const half = 0.5 * incompleteBeta(df / (df + t * t), df / 2, 0.5);
  return t >= 0 ? half : 1 - half;
}

/** Returns the upper tail P(Z > z) of the standard normal; the relative error stays near 1e-14 far out. */
export function normalTail(z: number): number {
  if (z < 0) return 1 - normalTail(-z);
  const density = Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI);
  if (z < 2.5) {
    // Phi(z) - 1/2 = density * (z + z^3/3 + z^5/(3 5) + ...)
    let term = z;
    let sum = z;
    for (let k = 3; term > sum * 1e-17; k += 2) {
      term *= (z * z) / k;
      sum += term;
    }
    return 0.5 - density * sum;
  }
  // Mills' ratio as a continued fraction: 1 / (z + 1 / (z + 2 / (z + 3 / ...)))
  let fraction = z;
  for (let k = 120; k >= 1; k--) fraction = z + k / fraction;
  return density / fraction;
}

/**
 * Returns the value that Student's t exceeds with probability `tail` in (0, 1); the normal's for `df` = Infinity.
 *
 * @throws RangeError outside of these ranges.
 */
export function studentUpper(tail: number, df: number): number {
  if (!(tail > 0 && tail < 1) || !(df > 0))
    throw new RangeError(`studentUpper: expected tail in (0, 1) and df > 0, got ${tail} and ${df}`);
  if (tail > 0.5) return -studentUpper(1 - tail, df);
  let low = 0;
  let high = 1;
  while (studentTail(high, df) > tail) {
    low = high;
    high *= 2;
  }
  for (let k = 0; k < 80 && high - low > 1e-14 * high; k++) {
    const middle = (low + high) / 2;
    if (studentTail(middle, df) > tail) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** Returns the value that the standard normal exceeds with probability `tail` in (0, 1). */
export const normalUpper = (tail: number): number => studentUpper(tail, Number.POSITIVE_INFINITY);

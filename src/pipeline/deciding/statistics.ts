// Statistics: the variance, and the tail of Student's t distribution.

/** Returns the unbiased variance (Welford 1962: no cancellation, whatever the mean); NaN for fewer than two values. */
export function variance(values: Iterable<number>): number {
  let count = 0;
  let mean = 0;
  let squares = 0;
  for (const value of values) {
    const delta = value - mean;
    count++;
    mean += delta / count;
    squares += delta * (value - mean);
  }
  return count > 1 ? squares / (count - 1) : Number.NaN;
}

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
  const half = 0.5 * incompleteBeta(df / (df + t * t), df / 2, 0.5);
  return t >= 0 ? half : 1 - half;
}

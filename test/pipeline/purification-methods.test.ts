// Tests the algorithms of purification on a denoiser in closed form: against the same algorithm written out pixel by
// pixel, the constraints after every step, and derivatives against finite differences.

import { describe, expect, test } from 'vitest';
import { UsageError } from '../../src/errors.ts';
import { distance } from '../../src/pipeline/norms.ts';
import { type Denoising, pullBackThrough, type State, statesOf } from '../../src/pipeline/purifying/chain.ts';
import { sigmasOfSteps } from '../../src/pipeline/purifying/likelihood-methods.ts';
import type { PurifyingOptions } from '../../src/pipeline/purifying/methods.ts';
import { purificationLevels, purificationSteps } from '../../src/pipeline/purifying/methods.ts';
import { givenNoise, seededNoise, uniform } from '../../src/pipeline/purifying/noise.ts';
import { projectWithin, pullBackProjection } from '../../src/pipeline/purifying/projection.ts';
import {
  ALPHA_BARS,
  addedSigmas,
  gaussianModel,
  shrink,
  timestepSigmas,
  timesteps,
} from './fake-denoiser.ts';
import { SUMMARY } from './fake-folder.ts';
import { gauss, hash } from './fake-model.ts';

const LENGTH = 12;
const SIGMAS = [0.41, 0.57, 0.49, 0.44, 0.52];
const NOISE = Float32Array.from({ length: 6 * LENGTH }, (_, i) => gauss(i, 7));
const eps = (step: number, i: number) => NOISE[step * LENGTH + i]!;
const image = (key: number) => Float32Array.from({ length: LENGTH }, (_, i) => 2 * hash(key, i) - 1);

/** Returns the requests of one image to a model, without a stream. */
function denoisingOf(model: ReturnType<typeof gaussianModel>): Denoising {
  const network = model.differentiable!;
  const one = (value: number) => Uint32Array.of(value);
  return {
    async lossGradient(x, level, noise) {
      model.encode(0, x);
      const at = { slot: one(0), candidate: one(0), level: one(level), noise: one(noise) };
      const { errors, gradients } = await network.gradients(at);
      return { error: errors[0]!, gradient: gradients };
    },
    predict: (xt, level) => network.predict({ xt, candidate: one(0), level: one(level) }),
    pullBack: (xt, level, cotangent) =>
      network.pullBack({ xt, candidate: one(0), level: one(level), cotangent }),
  };
}

type Kind = 'sigmas' | 'timesteps';

/** Returns the steps of a purification, and a model opened at their levels. */
function chainOf(options: PurifyingOptions, kind: Kind, noise: Float32Array | 'seeded' = NOISE) {
  const { seed = 0 } = options;
  const summary = kind === 'sigmas' ? SUMMARY : { ...SUMMARY, timestepSigmas };
  const levels = purificationLevels(options)(summary);
  const opened =
    kind === 'sigmas'
      ? addedSigmas(...levels.map(({ sigma }) => sigma!))
      : timesteps(...levels.map(({ t }) => t!));
  const model = gaussianModel({ ...opened, ...(noise === 'seeded' ? { seed } : { noise }) });
  const host = noise === 'seeded' ? seededNoise(seed, LENGTH) : givenNoise(noise, LENGTH);
  const steps = purificationSteps(options, { name: 'gaussian', mixes: opened.mixes, noise: host });
  return { steps, denoising: denoisingOf(model), opened };
}

const run = async (options: PurifyingOptions, kind: Kind, x: Float32Array) => {
  const { steps, denoising } = chainOf(options, kind);
  return statesOf(denoising, steps, x);
};

const close = (actual: ArrayLike<number>, expected: ArrayLike<number>, bound = 2e-6) => {
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) expect(Math.abs(actual[i]! - expected[i]!)).toBeLessThan(bound);
};

/** Returns the sigma that a step uses: the smallest of the model that is at least the requested one. */
const snapped = (kind: Kind, sigma: number) =>
  kind === 'sigmas' ? sigma : timestepSigmas.find((own) => own >= sigma)!;

const clip = (value: number, low = -1, high = 1) => Math.min(high, Math.max(low, value));

/** Returns d/dx of mean((D(x + sigma n) - x)²). */
const gradient = (x: readonly number[], sigma: number, step: number) =>
  x.map((value, i) => {
    const s = shrink(i, sigma);
    return (2 * ((s - 1) * value + s * sigma * eps(step, i)) * (s - 1)) / LENGTH;
  });

describe.each<Kind>(['sigmas', 'timesteps'])('%s', (kind) => {
  test('lm-adam is Adam as published, with clipping only at the end', async () => {
    const x = image(1).map((value) => 0.9 * value);
    let [y, m, v] = [[...x], new Array(LENGTH).fill(0), new Array(LENGTH).fill(0)];
    const seen: number[] = [];
    SIGMAS.forEach((expected, step) => {
      const g = gradient(y, snapped(kind, expected), step);
      m = m.map((value, i) => 0.9 * value + 0.1 * g[i]!);
      v = v.map((value, i) => 0.999 * value + 0.001 * g[i]! ** 2);
      y = y.map((value, i) => {
        const rise = Math.sqrt(v[i] / (1 - 0.999 ** (step + 1))) + 1e-8;
        return value - (0.8 * (m[i] / (1 - 0.9 ** (step + 1)))) / rise;
      });
      seen.push(Math.max(...y.map(Math.abs)));
    });
    expect(Math.max(...seen)).toBeGreaterThan(1);
    const states = await run({ method: 'lm-adam', stepSize: 0.8, sigmas: SIGMAS }, kind, x);
    expect(states).toHaveLength(7);
    close(
      states.at(-1)!.x,
      y.map((value) => clip(value)),
    );
    const held = await run({ method: 'lm-adam', stepSize: 0.8, sigmas: SIGMAS, eps: 0.1 }, kind, x);
    close(
      held.at(-1)!.x,
      y.map((value, i) => clip(clip(value, x[i]! - 0.2, x[i]! + 0.2))),
    );
  });

  test.each(['linf', 'l2'] as const)('lm-momentum, %s, equals every step written out', async (norm) => {
    const x = image(2);
    const [size, radius] = norm === 'linf' ? [0.02, 0.05] : [0.3, 0.5];
    let [y, m] = [[...x], new Array<number>(LENGTH).fill(0)];
    const states = await run(
      { method: 'lm-momentum', norm, stepSize: size, eps: radius / 2, sigmas: SIGMAS },
      kind,
      x,
    );
    SIGMAS.forEach((expected, step) => {
      const g = gradient(y, snapped(kind, expected), step);
      const length = g.reduce((sum, value) => sum + Math.abs(value), 0);
      m = m.map((value, i) => value - g[i]! / length);
      const size2 = Math.hypot(...m);
      y = y.map((value, i) => value + size * (norm === 'linf' ? Math.sign(m[i]!) : m[i]! / size2));
      const far = Math.hypot(...y.map((value, i) => value - x[i]!));
      y =
        norm === 'linf'
          ? y.map((value, i) => clip(value, x[i]! - radius, x[i]! + radius))
          : y.map((value, i) => x[i]! + (value - x[i]!) * Math.min(1, radius / far));
      y = y.map((value) => clip(value));
      close(states[step + 1]!.x, y);
    });
  });

  test('lm-residual moves towards the denoised image', async () => {
    const x = image(3);
    const options = { method: 'lm-residual', norm: 'l2', eps: 10, stepSize: 0.01, sigmas: [0.5] } as const;
    const [, { x: moved }] = (await run(options, kind, x)) as [State, State];
    const sigma = snapped(kind, 0.5);
    const way = [...x].map((value, i) => shrink(i, sigma) * (value + sigma * eps(0, i)) - value);
    const length = Math.hypot(...way);
    close(
      moved,
      way.map((value, i) => clip(x[i]! + (0.01 * value) / length)),
    );
  });
});

describe('diffpure', () => {
  test('of timesteps is the reverse SDE from t*, with the discrete betas', async () => {
    const x = image(4);
    let y = [...x].map(
      (value, i) => Math.sqrt(ALPHA_BARS[4]!) * value + Math.sqrt(1 - ALPHA_BARS[4]!) * eps(0, i),
    );
    for (let t = 4; t >= 0; t--) {
      const bar = ALPHA_BARS[t]!;
      const beta = 1 - bar / (ALPHA_BARS[t - 1] ?? 1);
      y = y.map((value, i) => {
        const score = -((1 - shrink(i, timestepSigmas[t]!)) * value) / (1 - bar);
        return value + (beta / 2) * value + beta * score + Math.sqrt(beta) * eps(5 - t, i);
      });
    }
    const states = await run({ method: 'diffpure', tStar: 5 }, 'timesteps', x);
    expect(states).toHaveLength(8);
    close(
      states.at(-1)!.x,
      y.map((value) => clip(value)),
    );
  });

  test('of sigmas is the probability flow, and reaches the solution of the differential equation', async () => {
    const x = image(5).map((value) => 0.5 * value);
    const options = { method: 'diffpure', steps: 100 } as const;
    const states = await run(options, 'sigmas', x);
    // dx/dsigma = x sigma / (v + sigma²) has x(0) = x(sigma) sqrt(v / (v + sigma²))
    const expected = [...x].map((value, i) => (value + 0.5 * eps(0, i)) * Math.sqrt(shrink(i, 0.5)));
    close(
      states.at(-1)!.x,
      expected.map((value) => clip(value)),
      1e-3,
    );
    const { opened } = chainOf({ method: 'diffpure' }, 'sigmas');
    const sigmas = opened.mixes.map(({ b }) => b);
    expect(sigmas).toHaveLength(18);
    expect(sigmas[0]).toBeCloseTo(0.5, 12);
    expect(sigmas.at(-1)).toBeCloseTo(0.002, 12);
    expect(sigmas[9]).toBeCloseTo((0.5 ** (1 / 7) + (9 / 17) * (0.002 ** (1 / 7) - 0.5 ** (1 / 7))) ** 7, 12);
  });

  test('may have fewer steps, and scales t* for models with other numbers of timesteps', () => {
    const ts = (options: Partial<PurifyingOptions>, numTrainTimesteps = 1000) =>
      purificationLevels({ method: 'diffpure', ...options })({
        ...SUMMARY,
        timestepSigmas,
        numTrainTimesteps,
      }).map(({ t }) => t);
    expect(ts({})).toEqual(Array.from({ length: 100 }, (_, k) => 99 - k));
    expect(ts({ tStar: 75 })).toHaveLength(75);
    expect(ts({ steps: 4 })).toEqual([99, 74, 49, 24]);
    expect(ts({ tStar: 100 }, 50)).toEqual([4, 3, 2, 1, 0]);
    expect(ts({ sigmas: [0.5, 0.1] })).toEqual(
      [0.5, 0.1].map((sigma) => timestepSigmas.findIndex((own) => own >= sigma)),
    );
  });
});

describe('every image', () => {
  const methods: PurifyingOptions[] = [
    { method: 'lm-momentum' },
    { method: 'lm-momentum', norm: 'l2', eps: 0.25, stepSize: 0.4 },
    { method: 'lm-residual' },
    { method: 'lm-residual', norm: 'l2' },
    { method: 'lm-adam', eps: 0.05 },
    { method: 'diffpure', eps: 0.1, norm: 'l2', tStar: 20 },
  ];
  test.each(methods)('$method $norm $eps: stays in the ball and in [-1, 1]', async (options) => {
    const everyStep = options.method === 'lm-momentum' || options.method === 'lm-residual';
    const radius = 2 * (options.eps ?? (options.norm === 'l2' ? 0.5 : 8 / 255));
    for (let key = 0; key < 20; key++) {
      const x = image(100 + key).map((value) => clip(1.3 * value));
      const { steps, denoising } = chainOf({ ...options, seed: key }, 'timesteps', 'seeded');
      const states = await statesOf(denoising, steps, x);
      let far = 0;
      for (const state of everyStep ? states : [states.at(-1)!]) {
        far = Math.max(far, distance(options.norm ?? 'linf', state.x, x));
        expect(distance(options.norm ?? 'linf', state.x, x)).toBeLessThan(radius + 1e-6);
        expect(Math.max(...state.x.map(Math.abs))).toBeLessThanOrEqual(1);
      }
      expect(far).toBeGreaterThan(0.3 * radius);
    }
  });

  test('has sigmas drawn from U(0.4, 0.6), different for every step, draw and seed', () => {
    const many = Array.from({ length: 400 }, (_, seed) => sigmasOfSteps({ seed })).flat();
    expect(Math.min(...many)).toBeGreaterThan(0.4);
    expect(Math.max(...many)).toBeLessThan(0.6);
    expect(many.reduce((sum, sigma) => sum + sigma, 0) / many.length).toBeCloseTo(0.5, 2);
    expect(new Set(many).size).toBeGreaterThan(250);
    expect(sigmasOfSteps({ draw: 1 })).not.toEqual(sigmasOfSteps({}));
    expect(uniform(3, 5)).toBe(uniform(3, 5));
    const opened = purificationLevels({ method: 'lm-adam' })(SUMMARY).map(({ sigma }) => sigma);
    expect(many.every((sigma) => opened.includes(sigma))).toBe(true);
  });

  test('has different noise in every draw', async () => {
    const answers = await Promise.all(
      [0, 1, 2].map(async (draw) => {
        const { steps, denoising } = chainOf({ method: 'lm-momentum', draw }, 'timesteps', 'seeded');
        return (await statesOf(denoising, steps, image(6))).at(-1)!.x.join();
      }),
    );
    expect(new Set(answers).size).toBe(3);
  });
});

describe('derivatives', () => {
  const cases: [PurifyingOptions, Kind][] = [
    [{ method: 'lm-adam', sigmas: SIGMAS, stepSize: 0.05 }, 'timesteps'],
    [{ method: 'lm-adam', sigmas: SIGMAS, stepSize: 0.05, eps: 0.04 }, 'sigmas'],
    [{ method: 'lm-momentum', sigmas: SIGMAS, stepSize: 0.02 }, 'timesteps'],
    [{ method: 'lm-momentum', norm: 'l2', sigmas: SIGMAS, eps: 0.2, stepSize: 0.2 }, 'timesteps'],
    [{ method: 'lm-momentum', norm: 'l2', sigmas: SIGMAS, eps: 2, stepSize: 0.1 }, 'sigmas'],
    [{ method: 'lm-residual', norm: 'l2', sigmas: SIGMAS, eps: 0.2, stepSize: 0.2 }, 'timesteps'],
    [{ method: 'diffpure', tStar: 5 }, 'timesteps'],
    [{ method: 'diffpure', tStar: 5, eps: 0.05, norm: 'l2' }, 'timesteps'],
    [{ method: 'diffpure', steps: 5 }, 'sigmas'],
  ];
  test.each(cases)('%o of %s', async (options, kind) => {
    const { steps, denoising } = chainOf(options, kind);
    const x = image(8).map((value) => 0.7 * value);
    const v = Float64Array.from({ length: LENGTH }, (_, i) => gauss(i, 9));
    const states = await statesOf(denoising, steps, x);
    const gradient = await pullBackThrough(denoising, steps, states, v);
    const value = async (at: Float32Array) => {
      const out = (await statesOf(denoising, steps, at)).at(-1)!.x;
      return out.reduce((sum, one, i) => sum + one * v[i]!, 0);
    };
    const h = options.method === 'lm-momentum' && options.norm !== 'l2' ? 1e-4 : 2e-3;
    const scale = Math.hypot(...gradient);
    expect(scale).toBeGreaterThan(0.1);
    for (let i = 0; i < LENGTH; i++) {
      const at = (side: number) => value(x.map((one, k) => (k === i ? one + side * h : one)));
      const difference = ((await at(1)) - (await at(-1))) / (2 * h);
      expect(Math.abs(difference - gradient[i]!)).toBeLessThan(0.01 * scale);
    }
  });

  test.each(['linf', 'l2'] as const)('projection on a ball, %s', (norm) => {
    const ball = { norm, radius: norm === 'linf' ? 0.2 : 0.5 };
    const origin = Float64Array.from(image(10));
    const x = Float64Array.from(origin, (value, i) => value + 0.3 * gauss(i, 11));
    const v = Float64Array.from({ length: LENGTH }, (_, i) => gauss(i, 12));
    const back = pullBackProjection(x, origin, ball, v);
    const value = (a: Float64Array, b: Float64Array) =>
      projectWithin(a, b, ball).reduce((sum, one, i) => sum + one * v[i]!, 0);
    const h = 1e-6;
    for (let i = 0; i < LENGTH; i++) {
      const moved = (row: Float64Array, side: number) =>
        row.map((one, k) => (k === i ? one + side * h : one));
      close([(value(moved(x, 1), origin) - value(moved(x, -1), origin)) / (2 * h)], [back.x[i]!], 1e-6);
      close([(value(x, moved(origin, 1)) - value(x, moved(origin, -1))) / (2 * h)], [back.origin[i]!], 1e-6);
    }
  });
});

test.each<[Partial<PurifyingOptions>, RegExp]>([
  [{ method: 'lm-momentum', eps: 8 }, /eps.*at most 1.*\[0, 1\].*8\/255; got 8/],
  [{ method: 'lm-adam', sigmas: [0.4], steps: 2 }, /a sigma for each of 2 steps, got 1/],
  [{ method: 'lm-adam', tStar: 5 }, /tStar belongs to diffpure/],
  [{ method: 'diffpure', stepSize: 0.1 }, /stepSize belongs to lm-adam, lm-momentum or lm-residual/],
  [{ method: 'diffpure', sigmas: [0.1, 0.2] }, /falling sigmas/],
  [{ method: 'diffpure', sigmas: [0.2, 0.1], tStar: 5 }, /exclude each other/],
  [{ method: 'lm-adam', sigmas: [1e6] }, /sigma 1000000 is above the model's last/],
])('%o is refused', (options, sentence) => {
  const open = () => purificationLevels(options as PurifyingOptions)({ ...SUMMARY, timestepSigmas });
  expect(open).toThrow(UsageError);
  expect(open).toThrow(sentence);
});

test('fewer noises than steps, and a model opened at other levels, are rejected', () => {
  const info = { name: 'gaussian', ...addedSigmas(0.5), noise: givenNoise(NOISE, LENGTH) };
  expect(() => purificationSteps({ method: 'lm-adam', sigmas: new Array(7).fill(0.5) }, info)).toThrow(
    /6 noises are given, lm-adam takes 7/,
  );
  expect(() => purificationSteps({ method: 'lm-adam', sigmas: [0.6] }, info)).toThrow(/without a level/);
});

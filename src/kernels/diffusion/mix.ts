// The forward diffusion process: computes the noised images of a batch of evaluations from the images in the slots.

import type { Capabilities } from '../device/device.ts';
import { divisor, pixelTeams, QUOTIENT, unrolled, walk } from '../device/indexing.ts';
import { ceilDiv, type KernelPart, read, u32, write } from '../device/kernel.ts';
import { type Routine, single } from '../device/routine.ts';
import { pitch, type Shape } from '../device/tensor.ts';
import { PHILOX } from './philox.ts';

/**
 * The source of noise: recomputed from each sample's seed wherever it is needed, or read from a table of
 * `count` given noises.
 */
export type NoiseSource = { readonly kind: 'philox' } | { readonly kind: 'table'; readonly count: number };

/** The operands of kernels that noise images: level [n] u32, noise [n] rows of `noiseKeys`, levels (a, b, alpha, beta). */
const LEVEL_AND_NOISE = [read('level', 'u32'), read('noise', 'vec4u'), read('levels', 'vec4f')];

/**
 * Returns what kernels that read noise have in common: `LEVEL_AND_NOISE`, and WGSL `noiseOf(key, block) -> vec4f` for
 * elements 4 block .. 4 block + 3 of a key's noise. A key is a row of `noiseKeys`: (noise index, seed low, seed high, 0). A
 * table (operand noises, plain [count][c h w]) ignores the seed. Elements from `u.elements` on are 0, and an index beyond
 * the table reads its last noise.
 */
export function noiseParts(source: NoiseSource): KernelPart {
  if (source.kind === 'table')
    return {
      bindings: [...LEVEL_AND_NOISE, read('noises')],
      uniforms: [u32('lastNoise', source.count - 1)],
      wgsl: /* wgsl */ `
fn noiseOf(key: vec4u, block: u32) -> vec4f {
  var v = vec4f(0);
  let base = min(key.x, u.lastNoise) * u.elements;
  for (var k = 0u; k < 4; k++) {
    if (4 * block + k < u.elements) { v[k] = noises[base + 4 * block + k]; }
  }
  return v;
}
`,
    };
  return {
    bindings: LEVEL_AND_NOISE,
    uniforms: [],
    wgsl: `${PHILOX}fn noiseOf(key: vec4u, block: u32) -> vec4f { return normals(block, key.x, 0, key.yz); }`,
  };
}

interface MixOptions {
  /** The noised batch [c, n, h, w]. */
  readonly y: Shape;
  readonly noise: NoiseSource;
}

/**
 * y[c, n, p] = a slots[slot[n]] + b eps, with (a, b) of level[n] and eps the noise of noise[n].
 *
 * Operands slots [images][c h w] (plain rows of x0), slot, level [n] u32, noise [n] rows of `noiseKeys`,
 * levels [entries] rows of (a, b, alpha, beta), with a table noises [count][c h w], and y [c, n, h, w]. One
 * invocation computes the four elements of a Philox counter. Evaluations with the same seed and noise index
 * get the same noise at every position in the batch.
 */
export function mix(capabilities: Capabilities, { y, noise }: MixOptions): Routine {
  const [c, n, h, w] = y;
  const elements = c * h * w;
  const blocks = ceilDiv(elements, 4);
  const parts = noiseParts(noise);
  const { uniforms, grid, main } = walk(capabilities, n * blocks);
  return single({
    name: `mix.${noise.kind}`,
    bindings: [read('slots'), read('slot', 'u32'), ...parts.bindings, write('y')],
    uniforms: [
      ...uniforms,
      u32('elements', elements),
      ...divisor('blocks', blocks),
      ...divisor('pixels', h * w),
      u32('pitch', pitch(y)),
      ...parts.uniforms,
    ],
    body:
      QUOTIENT +
      parts.wgsl +
      main(/* wgsl */ `let sample = quotient(i, u.blocks, u.blocksInverse);
    let block = i - sample * u.blocks;
    let ab = levels[level[sample]].xy;
    let image = slot[sample] * u.elements;
    let eps = noiseOf(noise[sample], block);
    for (var k = 0u; k < 4; k++) {
      let element = 4 * block + k;
      if (element < u.elements) {
        let channel = quotient(element, u.pixels, u.pixelsInverse);
        let at = channel * u.pitch + sample * u.pixels + element - channel * u.pixels;
        y[at] = ab.x * slots[image + element] + ab.y * eps[k];
      }
    }`),
    grid,
  });
}

/**
 * The gradient of the images in their slots: y[s][c, p] = Σ a dy[c, n, p] over the evaluations n of slot s,
 * in the order of n, with a of level[n].
 *
 * Operands dy [c, n, h, w], slot, level [n] u32, levels rows of (a, b, alpha, beta), and y [slots][c h w].
 */
export function slotsGradient(
  capabilities: Capabilities,
  { dy, slots }: { readonly dy: Shape; readonly slots: number },
): Routine {
  const [c, n, h, w] = dy;
  const elements = c * h * w;
  const { uniforms, grid, main } = walk(capabilities, slots * elements);
  return single({
    name: 'slotsGradient',
    bindings: [read('dy'), read('slot', 'u32'), read('level', 'u32'), read('levels', 'vec4f'), write('y')],
    uniforms: [
      ...uniforms,
      u32('n', n),
      ...divisor('elements', elements),
      ...divisor('pixels', h * w),
      u32('pitch', pitch(dy)),
    ],
    body:
      QUOTIENT +
      main(/* wgsl */ `let image = quotient(i, u.elements, u.elementsInverse);
    let element = i - image * u.elements;
    let channel = quotient(element, u.pixels, u.pixelsInverse);
    let first = channel * u.pitch + element - channel * u.pixels;
    var sum = 0.0;
    for (var k = 0u; k < u.n; k++) {
      if (slot[k] == image) { sum += levels[level[k]].x * dy[first + k * u.pixels]; }
    }
    y[i] = sum;`),
    grid,
  });
}

/**
 * y[c, n, p] = a x[c, n, p] with a of level[n]: the gradient that each evaluation's x_t passes on to its
 * image.
 * Operands x [c, n, h, w], level [n] u32, levels rows of (a, b, alpha, beta), and y [c, n, h, w].
 */
export function scaleByLevel(capabilities: Capabilities, { x }: { readonly x: Shape }): Routine {
  const { width, element, pixels, team, uniforms, grid, main } = pixelTeams(capabilities, x);
  return single({
    name: `scaleByLevel.${element}`,
    bindings: [read('x', element), read('level', 'u32'), read('levels', 'vec4f'), write('y', element)],
    uniforms: [...uniforms, u32('pixels', pixels), u32('rowPitch', pitch(x) / width)],
    body: main(/* wgsl */ `let a = levels[level[sample]].x;
  let start = row * u.rowPitch + sample * u.pixels;
  let end = start + u.pixels;
  ${unrolled(team, (_, i) => `y[${i}] = a * x[${i}];`)}`),
    grid,
  });
}

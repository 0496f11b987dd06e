// Selects, for each sample, one view and one head of a network that predicts for every class.

import { ShapeError } from '../../errors.ts';
import type { Capabilities } from '../device/device.ts';
import { divisor, pixelTeams, unrolled } from '../device/indexing.ts';
import { f32, read, u32, write } from '../device/kernel.ts';
import { type Routine, single } from '../device/routine.ts';
import { pitch, type Shape } from '../device/tensor.ts';

interface PickHeadOptions {
  /** The output of all heads, [heads·channels, views, h, w]; head k has the channels from k·channels on. */
  readonly x: Shape;
  /** Channels of a head. */
  readonly channels: number;
  /** Samples. */
  readonly n: number;
  /** Binds `view`; without it sample i uses view i. */
  readonly view: boolean;
}

function headsOf({ x: [c], channels }: PickHeadOptions): number {
  if (c % channels !== 0)
    throw new ShapeError(`pickHead: expected a multiple of ${channels} channels, got ${c}`);
  return c / channels;
}

/** Returns how a sample's view is found: from the binding, or from the sample's own index. */
const viewOf = ({ view }: PickHeadOptions) =>
  view
    ? {
        variant: 'views',
        bindings: [read('view', 'u32')],
        of: (sample: string) => `min(view[${sample}], u.lastView)`,
      }
    : { variant: 'each', bindings: [], of: (sample: string) => `min(${sample}, u.lastView)` };

/**
 * y[c, n] = x[label[n]·channels + c, view[n]]; a label beyond the heads selects the mean of all heads, added
 * in their order. A view beyond those of x selects the last.
 * Operands x [heads·channels, views, h, w], view (if bound), label [n] u32, y [channels, n, h, w].
 */
export function pickHead(capabilities: Capabilities, options: PickHeadOptions): Routine {
  const { x, channels, n } = options;
  const [, views, h, w] = x;
  const y: Shape = [channels, n, h, w];
  const view = viewOf(options);
  const heads = headsOf(options);
  const { width, element, pixels, team, uniforms, grid, main } = pixelTeams(capabilities, y);
  return single({
    name: `pickHead.${view.variant}.${element}`,
    bindings: [read('x', element), ...view.bindings, read('label', 'u32'), write('y', element)],
    uniforms: [
      ...uniforms,
      u32('pixels', pixels),
      u32('lastView', views - 1),
      u32('heads', heads),
      u32('headPitch', (channels * pitch(x)) / width),
      u32('xPitch', pitch(x) / width),
      u32('yPitch', pitch(y) / width),
      f32('share', 1 / heads),
    ],
    body: main(/* wgsl */ `let readAt = row * u.xPitch + ${view.of('sample')} * u.pixels;
  let writeAt = row * u.yPitch + sample * u.pixels;
  let start = 0u;
  let end = u.pixels;
  if (label[sample] < u.heads) {
    let ofHead = readAt + label[sample] * u.headPitch;
    ${unrolled(team, (_, i) => `y[writeAt + ${i}] = x[ofHead + ${i}];`)}
  } else {
    for (var i = member; i < end; i += ${team}u) {
      var sum = x[readAt + i];
      for (var head = 1u; head < u.heads; head++) { sum += x[readAt + head * u.headPitch + i]; }
      y[writeAt + i] = sum * u.share;
    }
  }`),
    grid,
  });
}

/**
 * The gradient of `pickHead` with respect to x: dx[k·channels + c, v] = Σ dy[c, n] over the samples n of view
 * v and head k, plus a share of dy[c, n] for samples that used the mean, added in the order of the samples.
 * Operands dy [channels, n, h, w], view (if bound), label [n] u32, y = dx [heads·channels, views, h, w].
 */
export function pickHeadBackward(capabilities: Capabilities, options: PickHeadOptions): Routine {
  const { x, channels, n } = options;
  const [, views, h, w] = x;
  const view = viewOf(options);
  const heads = headsOf(options);
  const { width, element, pixels, team, uniforms, grid, main } = pixelTeams(capabilities, x);
  return single({
    name: `pickHeadBackward.${view.variant}.${element}`,
    bindings: [read('dy', element), ...view.bindings, read('label', 'u32'), write('y', element)],
    uniforms: [
      ...uniforms,
      u32('pixels', pixels),
      u32('lastView', views - 1),
      u32('samples', n),
      u32('heads', heads),
      ...divisor('channels', channels),
      u32('dyPitch', pitch([channels, n, h, w]) / width),
      u32('xPitch', pitch(x) / width),
      f32('share', 1 / heads),
    ],
    // The walk's `sample` is the view here.
    body: main(/* wgsl */ `let head = quotient(row, u.channels, u.channelsInverse);
  let readAt = (row - head * u.channels) * u.dyPitch;
  let writeAt = row * u.xPitch + sample * u.pixels;
  for (var i = member; i < u.pixels; i += ${team}u) {
    var sum = ${element}(0);
    for (var s = 0u; s < u.samples; s++) {
      if (${view.of('s')} != sample) { continue; }
      if (label[s] == head) { sum += dy[readAt + s * u.pixels + i]; }
      else if (label[s] >= u.heads) { sum += dy[readAt + s * u.pixels + i] * u.share; }
    }
    y[writeAt + i] = sum;
  }`),
    grid,
  });
}

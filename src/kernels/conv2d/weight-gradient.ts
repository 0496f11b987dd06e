// The gradient of a convolution's or dense layer's weights, as one product over all columns of the batch.
//
// On an H200 (bench/results/nvidia-h200.json), 3x3, in TFLOP/s of the definition: by Winograd 26.1 for 128
// channels at 32x32 (n = 64) and 42.8 for 256 at 16x16 (n = 8); by gathered taps 3.9 for 128 channels at
// 32x32 with stride 2 (n = 8). That product had 36 workgroups, fewer than the GPU has cores; with the shorter parts of
// today it has 144, which has not been measured.
//
// Methods: sums in registers for few channels (weight-gradient-direct.ts), Winograd's tiles for 3x3 with stride 1
// (winograd-weight-gradient.ts), and else a product with gathered taps: along the rows of both factors
// (weight-gradient-rows.ts) on software adapters, and with transposed factors elsewhere.

import type { Capabilities } from '../device/device.ts';
import { withoutMatrix } from '../device/families.ts';
import { divisor } from '../device/indexing.ts';
import { ceilDiv, LINEAR_GROUP, linearGrid, linearMain, pad4, read, u32, write } from '../device/kernel.ts';
import { type Routine, type Step, step } from '../device/routine.ts';
import { columns } from '../device/tensor.ts';
import { transpose } from '../elementwise/transpose.ts';
import { gemm } from '../gemm/gemm.ts';
import {
  COLUMN_PLACE,
  type Conv2dOptions,
  columnUniforms,
  eachTap,
  type Geometry,
  geometryOf,
  prologue,
  windowsOf,
  windowUniforms,
} from './conv2d-shape.ts';
import { directWeightGradient, fitsDirect } from './weight-gradient-direct.ts';
import { fold } from './weight-gradient-fold.ts';
import { rowsWeightGradient } from './weight-gradient-rows.ts';
import { fitsWinograd, winogradWeightGradient } from './winograd-weight-gradient.ts';

type WeightGradientOptions = Pick<Conv2dOptions, 'x' | 'outChannels' | 'kernel' | 'stride' | 'padding'>;

/**
 * The most columns that are summed one after the other; rounding errors grow with their number. Then the blocks' sums are
 * added.
 */
const BLOCK = 1024;
/** Blocks are made smaller until there are this many workgroups of 64 x 128 results, but not smaller than `FEWEST`. */
const GROUPS = 128;
const FEWEST = 256;
/** Bytes of gathered pixels in a pass. */
const PASS_BYTES = 2 ** 25;
const LANES = 32;
/** Channels per gathering invocation, which share the work of locating its pixels. */
const CHANNELS = 8;

/**
 * Returns a routine for y[o, (c, i, j)] = Σ over columns p of dy[o, p] x[c, p stride + (i, j) - padding]: the
 * gradient of a convolution's weights [oc, c, kh, kw] in their natural order, one row per output channel; a
 * dense layer has a kernel of 1.
 * Operands x [c, n, h, w], dy [oc, n, oh, ow], y [oc, 1, 1, c kh kw].
 *
 * Both factors of the product need their columns as rows: dy is transposed, and x's taps are gathered in that order, in
 * passes. The order of the sum depends on the shapes alone: within blocks of at most 1024 columns, then over the blocks.
 * @throws ShapeError if the options do not describe a convolution.
 */
export function weightGradient(device: Capabilities, options: WeightGradientOptions): Routine {
  const capabilities = withoutMatrix(device); // products of gradients stay f32
  const geometry = geometryOf({ ...options, bias: false, weights: 'f32' });
  if (fitsDirect(capabilities, geometry)) return directWeightGradient(capabilities, geometry);
  if (fitsWinograd(capabilities, geometry, BLOCK))
    return winogradWeightGradient(capabilities, geometry, BLOCK);
  if (capabilities.family === 'subgroup') return rowsWeightGradient(capabilities, geometry, BLOCK);
  const { x, y: dy, kernel, stride, top, left } = geometry;
  const k = x[0] * kernel[0] * kernel[1];
  const [row, rowDy] = [pad4(k), pad4(dy[0])];
  const all = columns(dy);
  const block = blockOf(dy[0], k, all);
  const limit = Math.min(PASS_BYTES, capabilities.maxBindingBytes) / 4;
  const part = dy[0] * row;
  const blocks = Math.floor(
    Math.min(limit / row / block, limit / rowDy / block, capabilities.maxBindingBytes / 4 / part),
  );
  const most = Math.max(1, blocks) * block;
  const whole = all <= block;
  const asItIs =
    kernel[0] === 1 && kernel[1] === 1 && stride === 1 && columns(x) === all && top === 0 && left === 0;
  const product = (count: number, from: number, batch: number): Step => ({
    kernel: gemm(capabilities, {
      m: dy[0],
      k: count,
      columns: k,
      batch: [1, batch],
      a: { pitch: rowDy, offset: from * rowDy, inner: block * rowDy },
      b: { pitch: row, offset: from * row, inner: block * row },
      c: { pitch: row, offset: (from / block) * part, inner: part },
    }),
    operands: ['columnsOfDy', 'taps', whole ? 'y' : 'parts'],
  });
  const steps: Step[] = [];
  for (let first = 0; first < all; first += most) {
    const count = Math.min(most, all - first);
    const full = Math.floor(count / block);
    const rest = count - full * block;
    steps.push(
      { kernel: transpose(dy, first, count), operands: ['dy', 'columnsOfDy'] },
      asItIs
        ? { kernel: transpose(x, first, count), operands: ['x', 'taps'] }
        : gather(geometry, first, count, row),
    );
    if (full > 0) steps.push(product(block, 0, full));
    if (rest > 0) steps.push(product(rest, full * block, 1));
    if (!whole) steps.push(fold(capabilities, part, full + Math.sign(rest), first > 0));
  }
  const held = pad4(Math.min(most, all));
  return {
    steps,
    scratch: {
      columnsOfDy: 4 * held * rowDy,
      taps: 4 * held * row,
      ...(whole ? {} : { parts: 4 * ceilDiv(held, block) * part }),
    },
    packing: {},
  };
}

/** Returns the columns of a block for `m` x `k` weights, a multiple of 4. */
function blockOf(m: number, k: number, all: number): number {
  const blocks = ceilDiv(GROUPS, ceilDiv(m, 64) * ceilDiv(k, 128));
  return Math.min(BLOCK, Math.max(FEWEST, pad4(ceilDiv(all, blocks))));
}

/**
 * Returns the step for taps[p][c, i, j] for `count` columns from `first` on; an invocation gathers 4 columns
 * of some channels.
 */
function gather(geometry: Geometry, first: number, count: number, row: number): Step {
  const { x, y } = geometry;
  const blocks = ceilDiv(x[0], CHANNELS);
  const vectors = ceilDiv(count, 4);
  return step({
    name: 'weightGradient.taps',
    bindings: [read('x'), write('taps')],
    uniforms: [
      ...columnUniforms(y),
      ...windowUniforms(geometry),
      ...divisor('blocks', blocks),
      u32('vectors', vectors),
      u32('first', first),
      u32('row', row),
    ],
    body: /* wgsl */ `${LINEAR_GROUP}${COLUMN_PLACE}${prologue(geometry).wgsl}
${linearMain(LANES)}
  let index = linearGroup(group, groups) * ${LANES} + local;
  let vector = quotient(index, u.blocks, u.blocksInverse);
  if (vector >= u.vectors) { return; }
  let block = index - vector * u.blocks;
  ${windowsOf('u.first + 4 * vector')}
  let end = min((block + 1) * ${CHANNELS}, u.channels);
  var to = 4 * vector * u.row + block * ${CHANNELS} * u.kernelHeight * u.kernelWidth;
  for (var c = block * ${CHANNELS}; c < end; c++) {
    ${eachTap(/* wgsl */ `taps[to] = a.x;
        taps[to + u.row] = a.y;
        taps[to + 2 * u.row] = a.z;
        taps[to + 3 * u.row] = a.w;
        to++;`)}
  }
}`,
    grid: linearGrid(ceilDiv(vectors * blocks, LANES)),
  });
}

// The gradient of 3x3 weights for few channels: sums in registers, with one channel per lane. With 16 channels, storing and
// loading the transformed tiles of Winograd's method costs more than the saved products (see winograd-fused.ts).
//
// On lavapipe (2 cores, Mesa 25.0.7) at 28x28, n = 64, in ms and as the speed relative to the forward pass
// (bench/backward.ts); before, by Winograd's tiles or gathered taps:
// - 16 -> 16 channels: 3.4 (1.3), before 12.2 (0.35).
// - 1 -> 16: 1.0 (1.1), before 3.7 (0.28).
// - 16 -> 1: 1.0 (2.3), before 14.7 (0.15).
// - 48 -> 16, n = 32: 4.8 (1.5); by Winograd's tiles of 7 7.1 (1.05).
// - 32 -> 32 at 16x16, n = 32: 3.2 (0.68), so Winograd's tiles of 4 do that, with 2.3 (0.99).

import type { Capabilities } from '../device/device.ts';
import { divisor, QUOTIENT } from '../device/indexing.ts';
import { ceilDiv, LINEAR_GROUP, linearGrid, linearMain, pad4, read, u32, write } from '../device/kernel.ts';
import { type Routine, type Step, step } from '../device/routine.ts';
import { pitch } from '../device/tensor.ts';
import type { Geometry } from './conv2d-shape.ts';
import { lines } from './conv2d-tiles.ts';
import { fold } from './weight-gradient-fold.ts';

/** Pixels that are summed one after the other. */
const PIXELS = 1024;

/**
 * Returns whether the method applies: lanes that broadcast to each other, 3x3, stride 1, padding 1, rows of whole vec4s,
 * and channels of which Winograd's tiles are not worth their memory traffic.
 */
export const fitsDirect = (
  { family }: Capabilities,
  { x, y, kernel, stride, top, left }: Geometry,
): boolean =>
  family === 'subgroup' &&
  kernel[0] === 3 &&
  kernel[1] === 3 &&
  stride === 1 &&
  top === 1 &&
  left === 1 &&
  y[2] === x[2] &&
  y[3] === x[3] &&
  x[3] % 4 === 0 &&
  x[0] * y[0] <= (x[2] < 28 ? 16 * 32 : 32 * 32);

/** How the batch is divided: parts of `rows` rows of `samples` samples each. */
interface Division {
  readonly rows: number;
  readonly samples: number;
  readonly parts: number;
}

/** Returns parts of about 1024 pixels, or larger ones if their sums, of `part` elements each, take too much memory. */
function divisionOf({ maxBindingBytes }: Capabilities, { x: [, n, h, w] }: Geometry, part: number): Division {
  const most = Math.max(1, Math.floor(Math.min(maxBindingBytes, 2 ** 25) / 4 / part));
  const rows = Math.min(h, ceilDiv(PIXELS, w));
  const bands = ceilDiv(h, rows);
  const samples = bands > 1 ? 1 : Math.max(1, Math.floor(PIXELS / (h * w)));
  const parts = bands * ceilDiv(n, samples);
  if (parts <= most) return { rows, samples, parts };
  const larger = ceilDiv(n, most);
  return { rows: h, samples: larger, parts: ceilDiv(n, larger) };
}

/** Returns a routine for y of `weightGradient`. */
export function directWeightGradient(capabilities: Capabilities, geometry: Geometry): Routine {
  const part = geometry.y[0] * pad4(9 * geometry.x[0]);
  const { step, parts } = directSums(capabilities, geometry);
  if (parts === 1) return { steps: [{ ...step, operands: ['x', 'dy', 'y'] }], scratch: {}, packing: {} };
  return {
    steps: [step, fold(capabilities, part, parts, false)],
    scratch: { parts: 4 * parts * part },
    packing: {},
  };
}

/**
 * Returns the step for parts[part][o][c, i, j] = Σ over the pixels p of a part of dy[o, p] x[c, p + (i, j) - 1], and the
 * number of parts. Rows of a part are padded to `row` elements.
 *
 * A workgroup is one subgroup. A lane owns an input channel and loads its pixels; each lane also loads the gradients of
 * one or two of up to 16 output channels, which are broadcast. If there are fewer input channels than lanes, a lane owns
 * an output channel instead, and all lanes load the same pixels. The walk goes down a column of vec4s, so that of three
 * rows of six pixels only one is loaded: with 8 lanes and 16 output channels, 14 values for 576 products.
 */
function directSums(
  capabilities: Capabilities,
  geometry: Geometry,
): { readonly step: Step; readonly parts: number } {
  const { x, y } = geometry;
  const { subgroupSize: lanes } = capabilities;
  const [ic, oc] = [x[0], y[0]];
  const row = pad4(9 * ic);
  const { rows, samples, parts } = divisionOf(capabilities, geometry, oc * row);
  const ownInputs = ic >= lanes;
  // Channels of x and of dy whose sums a lane holds.
  const xs = ownInputs ? 1 : ic;
  const gs = ownInputs ? (([1, 4, 8] as const).find((count) => count >= oc) ?? 16) : 1;
  const loads = ownInputs ? ceilDiv(gs, lanes) : 1;
  const blocksOfX = ownInputs ? ceilDiv(ic, lanes) : 1;
  const blocksOfG = ceilDiv(oc, ownInputs ? gs : lanes);
  const each = (line: (a: number, b: number) => string) => lines(xs, (a) => lines(gs, (b) => line(a, b)));
  const gradient = (b: number, p: number) =>
    ownInputs ? `subgroupBroadcast(g${Math.floor(b / lanes)}[${p}], ${b % lanes}u)` : `g0[${p}]`;
  const loadRow = (a: number, to: number, at: string, ok: string) => /* wgsl */ `{
      let at = (x${a} + ${at} * u.width) / 4 + v;
      let mid = select(vec4f(), x[select(0, at, ${ok})], ${ok});
      r${a}_${to}_0 = select(0, x[select(0, at - 1, ${ok} & notFirst)].w, ${ok} & notFirst);
      ${lines(4, (k) => `r${a}_${to}_${k + 1} = mid[${k}];`, ' ')}
      r${a}_${to}_5 = select(0, x[select(0, at + 1, ${ok} & notLast)].x, ${ok} & notLast);
    }`;
  const product = (a: number, b: number, i: number, j: number) =>
    [0, 1, 2, 3].reduce(
      (sum, p) => `fma(t${b}_${p}, r${a}_${i}_${p + j}, ${sum})`,
      `s${a}_${b}_${3 * i + j}`,
    );
  const made = step({
    name: `weightGradient.direct.${ownInputs ? 'in' : 'out'}.${xs}x${gs}`,
    enable: ['subgroups'],
    bindings: [read('x', 'vec4f'), read('dy', 'vec4f'), write('parts')],
    uniforms: [
      ...divisor('blocksOfX', blocksOfX),
      ...divisor('blocksOfG', blocksOfG),
      ...divisor('bands', ceilDiv(x[2], rows)),
      u32('parts', parts),
      u32('rows', rows),
      u32('samplesEach', samples),
      u32('samples', x[1]),
      u32('inChannels', ic),
      u32('outChannels', oc),
      u32('height', x[2]),
      u32('width', x[3]),
      u32('xPitch', pitch(x)),
      u32('row', row),
    ],
    body: /* wgsl */ `const LANES = ${lanes}u;
${LINEAR_GROUP}${QUOTIENT}
${linearMain(lanes)}
  let index = linearGroup(group, groups);
  let rest = quotient(index, u.blocksOfX, u.blocksOfXInverse);
  let part = quotient(rest, u.blocksOfG, u.blocksOfGInverse);
  if (part >= u.parts) { return; }
  let firstX = (index - rest * u.blocksOfX) * LANES;
  let firstG = (rest - part * u.blocksOfG) * ${ownInputs ? gs : lanes};
  let samples = quotient(part, u.bands, u.bandsInverse);
  let band = part - samples * u.bands;
  let top = band * u.rows;
  let bottom = min(top + u.rows, u.height);
  let vectors = u.width / 4;
  ${each((a, b) => lines(9, (k) => `var s${a}_${b}_${k} = 0.0;`, ' '))}
  let lastSample = min((samples + 1) * u.samplesEach, u.samples);
  for (var sample = samples * u.samplesEach; sample < lastSample; sample++) {
    let image = sample * u.height * u.width;
    ${lines(xs, (a) => `let x${a} = ${ownInputs ? 'min(firstX + local, u.inChannels - 1)' : `${a}`} * u.xPitch + image;`)}
    ${lines(loads, (k) => `let dy${k} = (min(firstG + ${k * lanes} + local, u.outChannels - 1) * u.xPitch + image) / 4;`)}
    for (var v = 0u; v < vectors; v++) {
      let notFirst = v > 0;
      let notLast = v + 1 < vectors;
      let above = top > 0;
      ${lines(
        xs,
        (a) => `${lines(3, (i) => lines(6, (k) => `var r${a}_${i}_${k} = 0.0;`, ' '))}
      ${loadRow(a, 1, '(top - 1)', 'above')}
      ${loadRow(a, 2, 'top', 'true')}`,
      )}
      for (var line = top; line < bottom; line++) {
        ${lines(loads, (k) => `let g${k} = dy[dy${k} + line * vectors + v];`)}
        let below = line + 1 < u.height;
        ${lines(
          xs,
          (a) => `${lines(2, (i) => lines(6, (k) => `r${a}_${i}_${k} = r${a}_${i + 1}_${k};`, ' '))}
        ${loadRow(a, 2, '(line + 1)', 'below')}`,
        )}
        ${lines(
          gs,
          (b) => `{ ${lines(4, (p) => `let t${b}_${p} = ${gradient(b, p)};`, ' ')}
        ${lines(xs, (a) => lines(9, (k) => `s${a}_${b}_${k} = ${product(a, b, Math.floor(k / 3), k % 3)};`))} }`,
        )}
      }
    }
  }
  ${
    ownInputs
      ? /* wgsl */ `let channel = firstX + local;
  let end = min(firstG + ${gs}, u.outChannels);
  for (var o = firstG; o < end; o++) {
    let to = (part * u.outChannels + o) * u.row + 9 * channel;
    if (channel < u.inChannels) {
      ${lines(9, (k) => `parts[to + ${k}] = s0_0_${k};`)}
    }
    ${lines(gs - 1, (b) => lines(9, (k) => `s0_${b}_${k} = s0_${b + 1}_${k};`, ' '))}
  }`
      : /* wgsl */ `let o = firstG + local;
  if (o >= u.outChannels) { return; }
  let to = (part * u.outChannels + o) * u.row;
  ${lines(xs, (a) => lines(9, (k) => `parts[to + ${9 * a + k}] = s${a}_0_${k};`))}`
  }
}`,
    grid: linearGrid(blocksOfX * blocksOfG * parts),
  });
  return { step: made, parts };
}

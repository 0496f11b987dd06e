// The gradient of a 3x3 convolution of stride 2 with respect to its input, one phase at a time: the pixels of dx at even
// rows and columns see one tap of every output channel, those at odd ones two or four (the other way round without
// padding in front), so that four small dense convolutions of dy need the same products as the forward pass, and no
// zeros are multiplied.

import type { Capabilities } from '../device/device.ts';
import { divisor, QUOTIENT } from '../device/indexing.ts';
import { ceilDiv, f32, LINEAR_GROUP, linearGrid, linearMain, read, u32, write } from '../device/kernel.ts';
import { type Packing, type Routine, type Step, step } from '../device/routine.ts';
import { pitch } from '../device/tensor.ts';
import { unroll } from '../gemm/gemm-spec.ts';
import { paddedPlane, paddedRow, padInput, type SampleRange } from './conv2d-padded.ts';
import { geometryOf } from './conv2d-shape.ts';
import { ELEMENTS, lines, together } from './conv2d-tiles.ts';
import type { InputGradientOptions } from './input-gradient-options.ts';

/** Bytes of padded dy per pass, few enough that the second kernel of the pass finds them in the caches. */
const PASS_BYTES = 2 ** 22;

/** A tap of a phase along one dimension: pixel 2 m + phase of dx sees it on pixel m + offset of dy. */
interface Tap {
  readonly tap: number;
  readonly offset: number;
}

/** Returns the taps of both phases along a dimension with `before` zeros in front, 0 or 1. */
const tapsOf = (before: number): readonly (readonly Tap[])[] =>
  [0, 1].map((phase) =>
    [0, 1, 2]
      .filter((tap) => (phase + before - tap) % 2 === 0)
      .map((tap) => ({ tap, offset: (phase + before - tap) / 2 })),
  );

/** Packs weights [ic, oc, 3, 3] of the transposed convolution as [block of lanes ic][oc][tap][lane]. */
function packPhases(ic: number, oc: number, lanes: number): Packing {
  const blocks = ceilDiv(ic, lanes);
  return {
    key: `conv2d.phases.${ic}x${oc}.${lanes}`,
    bytes: 4 * blocks * oc * 9 * lanes,
    dtype: 'f32',
    row: 9 * oc,
    place: (values, from, packed) => {
      const out = new Float32Array(packed);
      const first = from / (9 * oc);
      values.forEach((value, i) => {
        const c = first + Math.floor(i / (9 * oc));
        const rest = i % (9 * oc); // (output channel, tap)
        out[(Math.floor(c / lanes) * 9 * oc + rest) * lanes + (c % lanes)] = value;
      });
    },
  };
}

/** Whether the method applies: a stride of 2, and lanes that broadcast to each other. */
export const fitsPhases = ({ family }: Capabilities, { stride }: InputGradientOptions): boolean =>
  family === 'subgroup' && stride === 2;

/** Returns the routine for `inputGradient`. */
export function phasesInputGradient(capabilities: Capabilities, options: InputGradientOptions): Routine {
  const { dy, x } = options;
  const { subgroupSize: lanes } = capabilities;
  const ofDy = geometryOf({ x: dy, outChannels: x[0], kernel: [1, 1], bias: false, weights: 'f32' });
  const bytes = (samples: number) => 16 * dy[0] * paddedPlane(ofDy, samples);
  const limit = Math.min(PASS_BYTES, capabilities.maxBindingBytes);
  const most = Math.max(1, ceilDiv(dy[1], ceilDiv(bytes(dy[1]), limit)));
  const steps: Step[] = [];
  for (let first = 0; first < dy[1]; first += most) {
    const range = { first, count: Math.min(most, dy[1] - first) };
    const padded = padInput(ofDy, range);
    steps.push(
      { ...padded, operands: padded.operands.map((name) => (name === 'x' ? 'dy' : name)) },
      phasesStep(options, range, lanes, paddedRow(ofDy), paddedPlane(ofDy, range.count)),
    );
  }
  return {
    steps,
    scratch: { padded: bytes(most) },
    packing: { weight: packPhases(x[0], dy[0], lanes) },
  };
}

/**
 * Returns the step that computes dx from `padded`. A workgroup is one subgroup and computes as many channels of dx as it
 * has lanes. A lane owns two vec4s of dy's columns, hence two blocks of 2 x 8 pixels of dx. For every channel of dy it
 * loads the two rows and five columns around each, and the nine weights of one channel of dx, which are then broadcast
 * from lane to lane: 25 values for 144 vec4 products, as few as the tile of a GEMM.
 */
function phasesStep(
  { dy, x, padding: [top, left], scale = 1, residual = false }: InputGradientOptions,
  { first, count }: SampleRange,
  lanes: number,
  row: number,
  plane: number,
): Step {
  const vecs = lanes > 8 ? 1 : 2;
  const rowTaps = tapsOf(top);
  const columnTaps = tapsOf(left);
  const firstRow = top === 1 ? 0 : -1;
  const width = together(x[3], 4);
  const element = ELEMENTS[width];
  const rows = ceilDiv(x[2], 2);
  const across = ceilDiv(x[3], 8);
  const vectors = count * rows * across;
  const groups = ceilDiv(vectors, lanes * vecs);
  const blocks = ceilDiv(x[0], lanes);
  const pixels = (offset: number, v: number, r: number) =>
    `d${v}_${r - firstRow}_${offset === 0 ? 'here' : 'aside'}`;
  const phases = [0, 1].flatMap((r) => [0, 1].map((q) => ({ r, q })));
  const sums = phases.flatMap(({ r, q }) => lines(vecs, (v) => `${r}${q}_${v}`, ' ').split(' '));
  const load = (v: number, r: number) => /* wgsl */ `let d${v}_${r}_here = padded[at${v} + ${r} * u.row];
    let d${v}_${r}_aside = ${
      left === 1
        ? `vec4f(d${v}_${r}_here.yzw, padded[at${v} + ${r} * u.row + 1].x)`
        : `vec4f(padded[at${v} + ${r} * u.row - 1].w, d${v}_${r}_here.xyz)`
    };`;
  const products = (i: number) =>
    phases
      .flatMap(({ r, q }) =>
        rowTaps[r]!.flatMap((down) =>
          columnTaps[q]!.map((right) => {
            // The weights are rotated by 180 degrees.
            const weight = `t${8 - 3 * down.tap - right.tap}`;
            return lines(
              vecs,
              (v) =>
                `c${i}_${r}${q}_${v} = fma(${weight}, ${pixels(right.offset, v, down.offset)}, c${i}_${r}${q}_${v});`,
              ' ',
            );
          }),
        ),
      )
      .join('\n      ');
  const store = (v: number, r: number) =>
    lines(8 / width, (k) => {
      const value = lines(
        width,
        (j) => `c0_${r}${(k * width + j) % 2}_${v}[${Math.floor((k * width + j) / 2)}]`,
        ', ',
      );
      return `if (on${v}_${r} & (column${v} + ${k * width} < u.width)) {
      let at = (to${v} + ${r} * u.width + ${k * width}) / ${width};
      y[at] = u.scale * (${element}(${value})${residual ? ' + residual[at]' : ''});
    }`;
    });
  return step({
    name: `conv2d.phases.${top}${left}.${element}${residual ? '.residual' : ''}`,
    enable: ['subgroups'],
    bindings: [
      read('padded', 'vec4f'),
      read('weight'),
      ...(residual ? [read('residual', element)] : []),
      write('y', element),
    ],
    uniforms: [
      ...divisor('blocks', blocks),
      ...divisor('vectorsPerImage', rows * across),
      ...divisor('vectorsAcross', across),
      u32('groups', groups),
      u32('vectors', vectors),
      u32('outChannels', dy[0]),
      u32('channels', x[0]),
      u32('firstSample', first),
      u32('dyHeight', dy[2]),
      u32('row', row),
      u32('plane', plane),
      u32('yPitch', pitch(x)),
      u32('height', x[2]),
      u32('width', x[3]),
      f32('scale', scale),
    ],
    body: /* wgsl */ `const LANES = ${lanes}u;
${LINEAR_GROUP}${QUOTIENT}
${linearMain(lanes)}
  let index = linearGroup(group, groups);
  let tile = quotient(index, u.blocks, u.blocksInverse);
  if (tile >= u.groups) { return; }
  let block = index - tile * u.blocks;
  ${lines(
    vecs,
    (v) => `let vector${v} = (tile * ${vecs} + ${v}) * LANES + local;
  let here${v} = vector${v} < u.vectors;
  let place${v} = min(vector${v}, u.vectors - 1);
  let sample${v} = quotient(place${v}, u.vectorsPerImage, u.vectorsPerImageInverse);
  let inImage${v} = place${v} - sample${v} * u.vectorsPerImage;
  let row${v} = quotient(inImage${v}, u.vectorsAcross, u.vectorsAcrossInverse);
  let across${v} = inImage${v} - row${v} * u.vectorsAcross;
  var at${v} = (sample${v} * (u.dyHeight + 1) + 1 + row${v}) * u.row + 1 + across${v}${firstRow < 0 ? ' - u.row' : ''};`,
  )}
  var tap = block * u.outChannels * ${9 * lanes} + local;
  ${lines(lanes, (i) => sums.map((sum) => `var c${i}_${sum} = vec4f();`).join(' '))}
  for (var o = 0u; o < u.outChannels; o++) {
    ${lines(9, (k) => `let w${k} = weight[tap + ${k * lanes}];`)}
    tap += ${9 * lanes};
    ${lines(vecs, (v) => lines(2, (r) => load(v, r)))}
    ${lines(vecs, (v) => `at${v} += u.plane;`, ' ')}
    ${unroll(
      lanes,
      (i) => `{
      ${lines(9, (k) => `let t${k} = vec4f(subgroupBroadcast(w${k}, ${i}u));`, ' ')}
      ${products(i)}
    }`,
    )}
  }
  let end = min((block + 1) * LANES, u.channels);
  ${lines(
    vecs,
    (v) => `let line${v} = 2 * row${v};
  let column${v} = 8 * across${v};
  ${lines(2, (r) => `let on${v}_${r} = here${v} & (line${v} + ${r} < u.height);`)}
  var to${v} = block * LANES * u.yPitch + ((u.firstSample + sample${v}) * u.height + line${v}) * u.width + column${v};`,
  )}
  for (var channel = block * LANES; channel < end; channel++) {
    ${lines(vecs, (v) => lines(2, (r) => store(v, r)))}
    ${lines(vecs, (v) => `to${v} += u.yPitch;`, ' ')}
    ${lines(lanes - 1, (i) => sums.map((sum) => `c${i}_${sum} = c${i + 1}_${sum};`).join(' '))}
  }
}`,
    grid: linearGrid(groups * blocks),
  });
}

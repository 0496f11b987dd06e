// Adds the parts of a gradient of weights.

import type { Capabilities } from '../device/device.ts';
import { walk } from '../device/indexing.ts';
import { accumulate, read, u32, write } from '../device/kernel.ts';
import { type Step, step } from '../device/routine.ts';

/** Returns the step for y = the sum of `count` parts, or y plus that sum if `more`. */
export function fold(capabilities: Capabilities, part: number, count: number, more: boolean): Step {
  const { uniforms, grid, main } = walk(capabilities, part / 4);
  return step({
    name: `weightGradient.fold${more ? '.more' : ''}`,
    bindings: [read('parts', 'vec4f'), (more ? accumulate : write)('y', 'vec4f')],
    uniforms: [...uniforms, u32('part', part / 4), u32('number', count)],
    body: main(/* wgsl */ `var sum = parts[i];
    for (var k = 1u; k < u.number; k++) { sum += parts[i + k * u.part]; }
    y[i] = ${more ? 'y[i] + sum' : 'sum'};`),
    grid,
  });
}

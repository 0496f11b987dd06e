// Where the tokens of a workgroup lie, for the kernels whose workgroups own tokens of one head and sample.

import { ceilDiv, f32, LINEAR_GROUP, type Uniform, u32 } from '../device/kernel.ts';
import { pitch } from '../device/tensor.ts';
import type { AttentionOptions } from './attention-options.ts';

/** Returns the uniforms of such a kernel, and its workgroups, each of which owns `owned` of the `tokens` of a head. */
export function placeUniforms(
  { heads, headDim, n, queries, keys, scale }: AttentionOptions,
  tokens: number,
  owned: number,
): { readonly uniforms: readonly Uniform[]; readonly groups: number } {
  const blocks = ceilDiv(tokens, owned);
  const groups = heads * n * blocks;
  return {
    groups,
    uniforms: [
      u32('groups', groups),
      u32('blocks', blocks),
      u32('n', n),
      u32('queries', queries),
      u32('keys', keys),
      u32('headDim', headDim),
      u32('qPitch', pitch([1, n, 1, queries])),
      u32('kPitch', pitch([1, n, 1, keys])),
      u32('statistics', heads * n * queries),
      u32('channels', heads * headDim),
      f32('scale', scale),
    ],
  };
}

/** Returns WGSL of `placeOf`: a workgroup's first token, and where its head and sample start in rows and statistics. */
export const placeWgsl = (owned: number) => /* wgsl */ `${LINEAR_GROUP}
struct Place { first: u32, q: u32, k: u32, statistics: u32, outside: bool }
fn placeOf(i: u32) -> Place {
  let matrix = i / u.blocks;
  let h = matrix / u.n;
  let s = matrix - h * u.n;
  return Place(
    (i - matrix * u.blocks) * ${owned}u,
    h * u.headDim * u.qPitch + s * u.queries,
    h * u.headDim * u.kPitch + s * u.keys,
    matrix * u.queries,
    i >= u.groups,
  );
}
`;

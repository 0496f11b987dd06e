// Tokens of a head in workgroup memory, which all invocations of a workgroup read while each owns other tokens: the parts
// that the attention kernels of the `tile` family share.

import { linearMain } from '../device/kernel.ts';
import { unroll } from '../gemm/gemm-spec.ts';

/** Invocations of a workgroup, each of which owns one or several tokens. */
export const LANES = 64;

/** Returns the vec4s of channels of a head; channels after the last are zero. */
export const vectorsOf = (headDim: number): number => Math.ceil(headDim / 4);

/** Returns the tokens that are staged at a time: two operands take 8 KiB or less with heads of up to 64. */
export const stagedTokens = (headDim: number): number => (headDim <= 32 ? 32 : 16);

/** Returns WGSL of the declaration of a staged operand, [vec4 of channels][token]. */
export const stagedMemory = (name: string, headDim: number): string =>
  `var<workgroup> ${name}: array<vec4f, ${vectorsOf(headDim) * stagedTokens(headDim)}>;`;

/** Returns WGSL of `name`(at, d, row) -> vec4f: channels d..d+3 of the token at index `at`, zero after the last channel. */
const loadFour = (name: string): string => /* wgsl */ `
fn four_${name}(at: u32, d: u32, row: u32) -> vec4f {
  let last = u.headDim - 1u;
  let v = vec4f(${name}[at + min(d, last) * row], ${name}[at + min(d + 1u, last) * row],
    ${name}[at + min(d + 2u, last) * row], ${name}[at + min(d + 3u, last) * row]);
  return select(vec4f(), v, vec4u(d, d + 1u, d + 2u, d + 3u) < vec4u(u.headDim));
}
`;

/** Returns WGSL of the functions that the operands' loads need. */
export const loadsWgsl = (names: readonly string[]): string => names.map(loadFour).join('');

/**
 * Returns WGSL that stages the tokens from `first` on of operands: each an operand, its workgroup memory, the index of the
 * head's first element, and the distance between its rows. The last token is repeated.
 */
export const stage = (
  headDim: number,
  first: string,
  count: string,
  operands: readonly (readonly [name: string, memory: string, head: string, row: string])[],
): string => {
  const tokens = stagedTokens(headDim);
  return /* wgsl */ `workgroupBarrier();
    for (var item = local; item < ${vectorsOf(headDim) * tokens}u; item += ${LANES}u) {
      let d = item / ${tokens}u;
      let token = min(${first} + item - d * ${tokens}u, ${count} - 1u);
      ${operands.map(([name, memory, head, row]) => `${memory}[item] = four_${name}(${head} + token, 4u * d, ${row});`).join('\n      ')}
    }
    workgroupBarrier();`;
};

/** Returns WGSL of the dot product of a staged token with vec4s named by `own`. */
export const dotStaged = (
  headDim: number,
  memory: string,
  token: string,
  own: (d: number) => string,
): string => {
  const product = (d: number) => `${memory}[${d * stagedTokens(headDim)}u + ${token}]`;
  const sum = Array.from({ length: vectorsOf(headDim) }, (_, d) => d).reduce(
    (rest, d) => (d === 0 ? `${product(0)} * ${own(0)}` : `fma(${product(d)}, ${own(d)}, ${rest})`),
    '',
  );
  return `dot(${sum}, vec4f(1))`;
};

/** Returns WGSL of a loop over the channels of a token that stores four vec4 elements one by one. */
export const storeFours = (
  headDim: number,
  target: string,
  at: string,
  row: string,
  value: (d: number) => string,
): string =>
  unroll(vectorsOf(headDim), (d) =>
    unroll(
      Math.min(4, headDim - 4 * d),
      (c) => `${target}[${at} + ${4 * d + c}u * ${row}] = ${value(d)}[${c}];`,
    ),
  );

export const stagedMain = linearMain(LANES);

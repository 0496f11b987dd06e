// Tests how kernels are rewritten to store operands as f16: the text, and what is refused.

import { defineKernel, type KernelSpec, read, u32, write } from '../../src/kernels/device/kernel.ts';
import { compile } from '../../src/kernels/device/runtime.ts';
import { isHalf, storedAs } from '../../src/kernels/device/storage.ts';
import { testDevice } from './harness.ts';
import { describe, expect, it } from './test-functions.ts';

const kernel = (body: string, spec: Partial<KernelSpec> = {}) =>
  defineKernel({
    name: 'test',
    bindings: [read('x'), read('v', 'vec4f'), read('index', 'u32'), write('y')],
    uniforms: [u32('n', 1)],
    body,
    grid: [1, 1, 1],
    ...spec,
  });

/** Returns the lines of a rewritten kernel's body. */
const rewritten = (body: string, ...names: string[]): string => {
  const { wgsl } = storedAs(kernel(body), names);
  return wgsl.slice(wgsl.indexOf('var<uniform> u: Uniforms;\n') + 'var<uniform> u: Uniforms;\n'.length);
};

describe('storing operands as f16', () => {
  it.each([
    ['let a = x[i];', 'let a = f32(x[i]);'],
    ['let a = x [ i + 1u ] * 2;', 'let a = f32(x[ i + 1u ]) * 2;'],
    ['let a = v[i].w + v[i][k];', 'let a = vec4f(v[i]).w + vec4f(v[i])[k];'],
    ['let a = x[index[x[0]]];', 'let a = f32(x[index[f32(x[0])]]);'],
    ['y[i] = a;', 'y[i] = f16(a);'],
    ['y[i]=select(0, x[i], ok[1]);', 'y[i] = f16(select(0, f32(x[i]), ok[1]));'],
    ['if (ok) { y[at] = x[at]; }', 'if (ok) { y[at] = f16(f32(x[at])); }'],
    ['for (; i < 4; y[i] = a) {}', 'for (; i < 4; y[i] = f16(a)) {}'],
    ['if (x[i] == y[i]) {}', 'if (f32(x[i]) == f32(y[i])) {}'],
    ['y[i] = y[i] + x[i]; y[j] = 0;', 'y[i] = f16(f32(y[i]) + f32(x[i])); y[j] = f16(0);'],
    ['let a = s.x[i] + xs[i] + max[x] + u.x;', 'let a = s.x[i] + xs[i] + max[x] + u.x;'],
    ['let a = 1; // x[i] stays', 'let a = 1; // x[i] stays'],
    ['fn f(x: f32) -> f32 { return x; }', 'fn f(x: f32) -> f32 { return x; }'],
  ])('%s', (body, expected) => {
    expect(rewritten(body, 'x', 'v', 'y')).toBe(expected);
  });

  it('changes the declarations of the chosen bindings, and enables f16 once', () => {
    const changed = storedAs(kernel(''), ['v', 'y']);
    expect(changed.name).toBe('test+f16');
    expect(changed.bindings.map(({ element }) => element)).toEqual(['f32', 'vec4<f16>', 'u32', 'f16']);
    expect(changed.wgsl.split('\n').slice(0, 5)).toEqual([
      'enable f16;',
      '@group(0) @binding(0) var<storage, read> x: array<f32>;',
      '@group(0) @binding(1) var<storage, read> v: array<vec4<f16>>;',
      '@group(0) @binding(2) var<storage, read> index: array<u32>;',
      '@group(0) @binding(3) var<storage, read_write> y: array<f16>;',
    ]);
    const enabled = kernel('', { enable: ['f16'] });
    expect(storedAs(enabled, ['y']).wgsl.split('enable f16;')).toHaveLength(2);
  });

  it('leaves bindings alone that are f16 already', () => {
    const matrix = kernel('y[0] = x[0];', {
      enable: ['f16'],
      bindings: [read('x', 'f16'), write('y', 'vec4<f16>')],
    });
    expect(storedAs(matrix, ['x', 'y'])).toBe(matrix);
    expect(['f16', 'vec2<f16>', 'vec4h', 'vec4f', 'u32'].map(isHalf)).toEqual([
      true,
      true,
      true,
      false,
      false,
    ]);
  });

  it('refuses integers, unknown bindings and pointers', () => {
    expect(() => storedAs(kernel(''), ['index'])).toThrow('expected a binding index of floats');
    expect(() => storedAs(kernel(''), ['z'])).toThrow('got none');
    expect(() => storedAs(kernel('let p = &x; let b = a & y[0];'), ['x'])).toThrow('through a pointer');
    expect(() => storedAs(kernel('if (a && x[0] > 0) {}'), ['x'])).not.toThrow();
  });

  it('does not compile if an access escaped the rewrite', async ({ skip }) => {
    const { gpu, capabilities } = await testDevice();
    if (!capabilities.f16) return skip('this adapter has no f16');
    const main = (line: string) => kernel(`@compute @workgroup_size(1) fn main() { ${line} }`);
    const outcome = async (line: string) => {
      gpu.pushErrorScope('validation');
      const failed = await compile(gpu, storedAs(main(line), ['x', 'y'])).then(
        () => false,
        () => true,
      );
      await gpu.popErrorScope();
      return failed;
    };
    // A compound assignment, a component of a vector, and a local array of the same name are not rewritten.
    expect(await outcome('y[0] = x[0] + f32(index[0]) + v[0].x + f32(u.n);')).toBe(false);
    expect(await outcome('y[0] += x[0];')).toBe(true);
    expect(await outcome('var x: array<f32, 2>; x[0] = 1.5; y[0] = x[0];')).toBe(true);
  });
});

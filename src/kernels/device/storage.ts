// Stores operands of a kernel as f16. Kernels are written for f32 bindings. The functions here rewrite the text of one,
// so that it reads and writes some of its bindings as f16 and still computes in f32.
//
// WGSL converts between f16 and f32 only where the text says so. A read or write that was not rewritten therefore does
// not compile, except that `let a = x[i]` would be an f16: so every indexed use of a binding is rewritten, and a use
// through a pointer is refused.

import { NoDeviceError } from '../../errors.ts';
import type { Capabilities } from './device.ts';
import type { Kernel } from './kernel.ts';
import { changed } from './tuning.ts';

/** How the elements of an activation are stored. Arithmetic is f32 with either type. */
export type Stored = 'f32' | 'f16';

/** Bytes of an element. */
export const STORED_BYTES: Readonly<Record<Stored, number>> = { f32: 4, f16: 2 };

/** @throws NoDeviceError if a device has no `shader-f16`, without which nothing can be stored as f16. */
export function requireF16({ f16, description }: Pick<Capabilities, 'f16' | 'description'>): void {
  if (!f16)
    throw new NoDeviceError(
      `precision: expected a device with shader-f16 for f16, got ${description || 'one without it'}; use auto or f32`,
    );
}

/** The f16 type of each element type of a binding that can be stored as f16. */
const HALF_TYPES = new Map([
  ['f32', 'f16'],
  ['vec2f', 'vec2<f16>'],
  ['vec4f', 'vec4<f16>'],
]);

/** Whether a binding's element type is f16: the kernel converts by itself, or multiplies f16 on matrix units. */
export const isHalf = (element: string): boolean => /^(f16|vec[24](<f16>|h))$/.test(element);

/** The element types of a binding, in arithmetic and in storage. */
interface Types {
  readonly element: string;
  readonly half: string;
}

/**
 * Returns the kernel with the bindings `names` stored as f16 and computed with as f32. It needs a device with `shader-f16`.
 * Bindings whose element is f16 already stay as they are.
 * @throws Error if a binding does not exist, holds no floats, or is used through a pointer.
 */
export function storedAs(kernel: Kernel, names: readonly string[]): Kernel {
  const stored = new Map<string, Types>();
  for (const name of names) {
    const element = kernel.bindings.find((binding) => binding.name === name)?.element;
    if (element !== undefined && isHalf(element)) continue;
    const half = element && HALF_TYPES.get(element);
    if (!half)
      throw new Error(
        `${kernel.name}: expected a binding ${name} of floats to store as f16, got ${element ?? 'none'}`,
      );
    stored.set(name, { element, half });
  }
  if (stored.size === 0) return kernel;
  return changed(kernel, (one) => rewritten(one, stored));
}

/** Returns a kernel with other types of some bindings, and conversions wherever they are used. */
function rewritten(kernel: Kernel, stored: ReadonlyMap<string, Types>): Kernel {
  const enabled = /^enable f16;$/m.test(kernel.wgsl) ? '' : 'enable f16;\n';
  let { wgsl } = kernel;
  for (const [name, { element, half }] of stored) {
    if (new RegExp(`(?<!&)&\\s*${name}\\b`).test(wgsl))
      throw new Error(
        `${kernel.name}: ${name} cannot be stored as f16, because it is used through a pointer`,
      );
    wgsl = wgsl.replace(`> ${name}: array<${element}>;`, `> ${name}: array<${half}>;`);
  }
  return {
    ...kernel,
    name: `${kernel.name}+f16`,
    bindings: kernel.bindings.map((binding) => ({
      ...binding,
      element: stored.get(binding.name)?.half ?? binding.element,
    })),
    wgsl: enabled + converted(wgsl, stored),
  };
}

/** Converts every indexed use of the stored bindings: reads to f32, and what is assigned to f16. */
function converted(wgsl: string, stored: ReadonlyMap<string, Types>): string {
  const use = /\/\/.*|(?<![\w.])[A-Za-z_]\w*(?=\s*\[)/g;
  let out = '';
  let at = 0;
  for (let found = use.exec(wgsl); found; found = use.exec(wgsl)) {
    const types = stored.get(found[0]);
    if (!types) continue;
    const open = wgsl.indexOf('[', use.lastIndex);
    const close = endOf(wgsl, open + 1);
    const element = `${found[0]}[${converted(wgsl.slice(open + 1, close), stored)}]`;
    out += wgsl.slice(at, found.index);
    const assigned = ASSIGNMENT;
    assigned.lastIndex = close + 1;
    if (assigned.test(wgsl)) {
      const from = assigned.lastIndex;
      at = endOf(wgsl, from);
      out += `${element} = ${types.half}(${converted(wgsl.slice(from, at), stored)})`;
    } else {
      at = close + 1;
      out += `${types.element}(${element})`;
    }
    use.lastIndex = at;
  }
  return out + wgsl.slice(at);
}

/** The `=` of an assignment, and the space around it. */
const ASSIGNMENT = /\s*=(?!=)\s*/y;

/** Returns where an expression that starts at `from` ends: at its `;`, or at a bracket that closes nothing in it. */
function endOf(wgsl: string, from: number): number {
  let depth = 0;
  for (let i = from; i < wgsl.length; i++) {
    const character = wgsl[i]!;
    if ('([{'.includes(character)) depth++;
    else if (')]}'.includes(character) && depth-- === 0) return i;
    else if (character === ';' && depth === 0) return i;
  }
  throw new Error('expected a WGSL expression that ends, got the end of the text');
}

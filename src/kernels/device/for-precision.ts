// Chooses capabilities for the precision of a plan.

import type { Capabilities } from './device.ts';
import { RUNS_ON } from './families.ts';
import type { Stored } from './storage.ts';

/**
 * Returns the capabilities with which kernels are chosen for a plan of a precision. Kernels of an f16 plan may round their
 * operands to f16, so they multiply on matrix units on a GPU that has some.
 */
export const forPrecision = (capabilities: Capabilities, precision: Stored): Capabilities =>
  precision === 'f16' && capabilities.family === 'tile' && RUNS_ON.matrix(capabilities)
    ? { ...capabilities, family: 'matrix' }
    : capabilities;

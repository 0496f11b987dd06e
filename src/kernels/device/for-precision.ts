// Chooses capabilities for the precision of a plan.

import type { Capabilities } from './device.ts';
import type { Stored } from './storage.ts';

/**
 * Returns the capabilities with which kernels are chosen for a plan of a precision. Kernels of an f16 plan may round their
 * operands to f16.
 */
export const forPrecision = (capabilities: Capabilities, _precision: Stored): Capabilities => capabilities;

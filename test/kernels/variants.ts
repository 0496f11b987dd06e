// What the kernel tests run in on this adapter: the families that it can run, and the types in which it can store
// activations. Tests of what it lacks are left out; test/mesa26.gpu.test.ts says so for matrix units, and
// storage.test.ts for f16.

import { FAMILIES, type Family } from '../../src/kernels/device/families.ts';
import type { Stored } from '../../src/kernels/device/storage.ts';
import { testDevice } from './harness.ts';

const { f16, matrix = [] } = (await testDevice()).capabilities;

export const familiesHere: readonly Family[] = FAMILIES.filter(
  (family) => family !== 'matrix' || matrix.length > 0,
);

export const typesHere: readonly Stored[] = f16 ? ['f32', 'f16'] : ['f32'];

/** Returns each case once for every type in which its activations can be stored. */
export const inEachType = <Case extends { readonly name: string }>(
  cases: readonly Case[],
): (Case & { readonly stored: Stored })[] =>
  cases.flatMap((each) =>
    typesHere.map((stored) => ({
      ...each,
      stored,
      name: stored === 'f32' ? each.name : `${each.name}, stored as f16`,
    })),
  );

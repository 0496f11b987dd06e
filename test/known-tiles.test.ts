// Tests the table of shipped tiles: its entries name tiles that exist, and devices find their entries.

import { describe, expect, test } from 'vitest';
import type { Capabilities, Family } from '../src/kernels/device/device.ts';
import { knownDevice } from '../src/kernels/device/known-tiles.ts';
import { gemm } from '../src/kernels/gemm/gemm.ts';

const MESA_25 =
  'mesa software llvmpipe-llvm-15-0-6-256-bits- llvmpipe: Mesa 25.0.7-2~bpo12+1 (LLVM 15.0.6) 0.0.1';
const MESA_26 = 'mesa software llvmpipe-llvm-22-1-8-256-bits- llvmpipe: Mesa 26.2.6-1 (LLVM 22.1.8)';
const MESA_26_WIDE = 'mesa software llvmpipe-llvm-22-1-8-512-bits- llvmpipe: Mesa 26.2.6-1 (LLVM 22.1.8)';
const H200 = 'nvidia nvidia-h200 NVIDIA: 580.159.04 580.159.4.0';

/** Returns the tile of a product on a device, and whether it is that of the rule. */
function tileOf(description: string, family: Family, m: number, k: number, columns: number, lanes = 8) {
  const limits = {
    maxInvocations: 1024,
    workgroupBytes: 32_768,
    subgroupSize: lanes,
    software: family !== 'tile',
  };
  const capabilities = { family, description, ...limits } as Capabilities;
  const spec = { m, k, columns, a: { pitch: 4096 }, b: { pitch: 65_536 }, c: { pitch: 65_536 } };
  const tiles = knownDevice(description)?.tiles;
  return gemm(tiles ? { ...capabilities, tiles } : capabilities, spec).tuning!.tile;
}

describe('shipped tiles', () => {
  test('are those that were measured on each architecture', () => {
    expect(tileOf(MESA_25, 'subgroup', 64, 64, 4096)).toBe('load4.vecs2.depth2');
    expect(tileOf(MESA_26, 'subgroup', 64, 64, 4096)).toBe('load4.vecs2.depth4');
    expect(tileOf(MESA_26, 'subgroup', 16, 48, 4096)).toBe('load2.vecs4.depth4');
    expect(tileOf(MESA_26, 'subgroup', 64, 64, 16)).toBe('load4.vecs1.depth4');
    expect(tileOf(MESA_26_WIDE, 'subgroup', 64, 64, 16, 16)).toBe('load2.vecs1.depth8.blocks2.group4');
    expect(tileOf(MESA_26_WIDE, 'subgroup', 16, 64, 16, 16)).toBe('load1.vecs1.depth8.blocks1.group4');
    expect(tileOf(H200, 'tile', 4096, 4096, 4096)).toBe('128x128x16.8x16.1buf.unrolled');
    expect(tileOf(H200, 'tile', 320, 320, 65_536)).toBe('128x128x16.8x16.1buf.unrolled');
    expect(tileOf(H200, 'tile', 1024, 1024, 1024)).toBe('128x64x16.8x8.1buf.unrolled');
    expect(tileOf('apple metal-3 Apple M2', 'tile', 320, 320, 4096)).toBe('64x64x16.4x8.1buf.unrolled');
    expect(tileOf('amd rdna-3 Radeon', 'tile', 320, 320, 4096)).toBe('128x64x16.8x8.1buf.unrolled');
  });

  test('make a search unnecessary only where they were measured', () => {
    expect(knownDevice(MESA_25)?.measured).toBe(true);
    expect(knownDevice(MESA_26)?.measured).toBe(true);
    expect(knownDevice(H200)?.measured).toBe(false);
    expect(knownDevice('a new card')).toBeUndefined();
  });
});

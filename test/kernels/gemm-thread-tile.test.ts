import { gemmThreadTile, type ThreadTile } from '../../bench/gemm-thread-tile.ts';
import { checkThreadGemm } from '../../bench/matrix-check.ts';
import { testDevice } from './harness.ts';
import { afterAll, describe, expect, it } from './test-functions.ts';

const device = testDevice().catch(() => undefined);
afterAll(async () => (await device)?.close());

describe('gemm in tiles of registers', () => {
  const base: ThreadTile = {
    rows: 32,
    columns: 64,
    depth: 8,
    threadRows: 4,
    threadColumns: 8,
    buffers: 2,
    stored: 'f32',
    staged: 'f32',
    products: 'f32',
    load: 4,
    unrolled: true,
  };
  const parts: readonly Partial<ThreadTile>[] = [
    {},
    { buffers: 1, unrolled: false },
    { stored: 'f16', load: 8 },
    { stored: 'f16', staged: 'f16' },
    { stored: 'f16', staged: 'f16', products: 'f16', load: 8 },
  ];
  const named = parts.map((part) => [JSON.stringify(part).replaceAll('"', ''), part] as const);
  it.for(named)('multiplies, %s', async ([, part], { skip }) => {
    const here = await device;
    if (!here) throw new Error('no device');
    const tile = { ...base, ...part };
    if (tile.staged === 'f16' && !here.capabilities.f16) return skip('this device has no f16 arithmetic');
    const spec = { m: 64, n: 128, k: 40 };
    const check = await checkThreadGemm(
      here,
      gemmThreadTile(tile, spec),
      tile,
      spec,
      Number.POSITIVE_INFINITY,
    );
    expect(check.error).toBeLessThanOrEqual(check.bound);
  });
});

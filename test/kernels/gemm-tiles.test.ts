import type { Capabilities, Device, Family } from '../../src/kernels/device/device.ts';
import type { Kernel } from '../../src/kernels/device/kernel.ts';
import type { WeightDtype } from '../../src/kernels/device/routine.ts';
import { createStorage, idle, prepare, readBack, submit } from '../../src/kernels/device/runtime.ts';
import { bucket, classKey, type ShapeClass } from '../../src/kernels/device/shape-class.ts';
import { changed } from '../../src/kernels/device/tuning.ts';
import { type GemmSpec, gemm } from '../../src/kernels/gemm/gemm.ts';
import { TILE_GEMM } from '../../src/kernels/gemm/gemm-tile.ts';
import { randomValues, testDevice } from './harness.ts';
import { afterAll, describe, expect, it } from './test-functions.ts';

const pad4 = (value: number): number => Math.ceil(value / 4) * 4;

const MATRICES = 3;

/** Products with a bias and a residual, and gaps between rows. */
const specOf = (m: number, k: number, columns: number, aType: WeightDtype = 'f32'): GemmSpec => {
  const [a, b, c] = [pad4(m), pad4(columns) + 4, pad4(columns) + 8];
  return {
    m,
    k,
    columns,
    batch: [1, MATRICES],
    a: { pitch: a, inner: k * a },
    b: { pitch: b, inner: k * b },
    c: { pitch: c, inner: m * c },
    aType,
    bias: true,
    residual: true,
  };
};

/** Returns the bits of a kernel's result, in which elements that it does not write are 0. */
async function run(device: Device, kernel: Kernel, spec: GemmSpec): Promise<Uint32Array> {
  const { m, k, a, b, c, aType } = spec;
  const bytes = 4 * MATRICES * m * c.pitch;
  const data: Record<string, Float32Array<ArrayBuffer>> = {
    // Random bits of f16 would include NaN, so an f16 factor holds small numbers: 0x2000 to 0x3fff.
    a: randomValues(MATRICES * k * a.pitch, 1),
    b: randomValues(MATRICES * k * b.pitch, 2),
    bias: randomValues(pad4(m), 3),
    residual: randomValues(MATRICES * m * c.pitch, 4),
    c: new Float32Array(MATRICES * m * c.pitch),
  };
  const halves = Uint16Array.from(data.a!, (value) => 0x2000 + Math.floor((value + 1) * 0xfff));
  const buffers = kernel.bindings.map(({ name }) =>
    createStorage(
      device,
      data[name]!.byteLength,
      name === 'a' && aType === 'f16' ? halves : data[name],
      name,
    ),
  );
  const sequence = await prepare(device, [
    { kernel, ranges: buffers.map((buffer) => ({ buffer, offset: 0, size: buffer.size })) },
  ]);
  submit(device, (pass) => sequence.encode(pass));
  await idle(device);
  const result = new Uint32Array(await readBack(device, { buffer: buffers.at(-1)!, offset: 0, size: bytes }));
  for (const buffer of buffers) buffer.destroy();
  sequence.destroy();
  return result;
}

const FAMILIES: readonly Family[] = ['tile', 'subgroup'];

describe.each(FAMILIES)('tiles of gemm, %s', (family) => {
  const device = testDevice({ family }).catch(() => undefined);
  afterAll(async () => (await device)?.close());

  it.for([
    [200, 37, 300, 'f32'],
    [40, 7, 36, 'f16'],
    [33, 16, 65, 'f32'],
    [5, 3, 9, 'f32'],
    [64, 130, 20, 'f32'],
    [70, 9, 14, 'f16'],
  ] as const)('give the same bytes, %i x %i x %i %s', async ([m, k, columns, type], context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    const spec = specOf(m, k, columns, type);
    const own = gemm(here.capabilities, spec);
    const expected = await run(here, own, spec);
    expect(expected.some((bits) => bits !== 0)).toBe(true);
    const tiles = own.tuning!.tiles();
    expect(tiles.length).toBeGreaterThan(1);
    for (const tile of tiles) {
      const kernel = own.tuning!.withTile(tile)!;
      expect(kernel.tuning!.tile).toBe(tile);
      expect(await run(here, kernel, spec), tile).toEqual(expected);
    }
  });

  // Software devices have no unrolled candidates, so this one, which they compile in a second, stands for all.
  if (family === 'tile')
    it.for([1, 2] as const)('give the same bytes unrolled, in %i buffers', async (buffers) => {
      const here = (await device)!;
      const spec = specOf(40, 21, 70);
      const sizes = { rows: 32, columns: 32, depth: 4, threadRows: 4, threadColumns: 4, buffers };
      const expected = await run(here, gemm(here.capabilities, spec), spec);
      for (const unrolled of [false, true]) {
        const kernel = TILE_GEMM.kernel(here.capabilities, spec, { ...sizes, unrolled });
        expect(await run(here, kernel, spec)).toEqual(expected);
      }
    });
});

describe('choosing a tile', () => {
  const capabilities = { family: 'subgroup', subgroupSize: 8 } as Capabilities;
  const spec = specOf(100, 300, 5000);
  const knowing = (tile: string | undefined): { name: string | undefined; asked: string[] } => {
    const asked: string[] = [];
    const get = (shape: ShapeClass) => {
      asked.push(classKey(shape));
      return tile;
    };
    return { name: gemm({ ...capabilities, tiles: { get } }, spec).tuning?.tile, asked };
  };

  it('asks for the class of the shapes, and takes the tile that the device knows', () => {
    expect(gemm(capabilities, spec).tuning?.tile).toBe('load4.vecs2.depth2');
    const { name, asked } = knowing('load2.vecs2.depth4');
    expect(name).toBe('load2.vecs2.depth4');
    expect(asked).toEqual([
      expect.stringMatching(/^gemm\.subgroup [0-9a-f]{8} f32 m128 k384 columns6144 batch3$/),
    ]);
  });

  it('takes the tile of the rule if the device knows none, or one that the kernel does not have', () => {
    expect(knowing(undefined).name).toBe('load4.vecs2.depth2');
    expect(knowing('128x128').name).toBe('load4.vecs2.depth2');
  });

  it('puts sizes into buckets of powers of two and three quarters of them', () => {
    expect([0, 1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 96, 97, 320].map(bucket)).toEqual([
      1, 1, 2, 3, 4, 6, 6, 8, 12, 12, 16, 96, 128, 384,
    ]);
  });

  it('changes a kernel together with its other tiles', () => {
    const kernel = changed(gemm(capabilities, spec), (other) => ({ ...other, name: `${other.name}!` }));
    expect(kernel.name).toMatch(/!$/);
    expect(kernel.tuning!.tiles().length).toBeGreaterThan(1);
    for (const tile of kernel.tuning!.tiles()) {
      const other = kernel.tuning!.withTile(tile)!;
      expect(other.name).toMatch(/!$/);
      expect(other.tuning!.withTile(kernel.tuning!.tile)!.name).toBe(kernel.name);
    }
  });
});

// Tests that adapters are listed, and chosen by name or index.

import { describe, expect, test } from 'vitest';
import { NoDeviceError } from '../../src/errors.ts';
import { type AdapterEntry, chooseAdapter, parseAdapterList } from '../../src/kernels/device/adapters.ts';
import { type CompileProgress, listDevices, openDevice } from '../../src/kernels/device/device.ts';
import { defineKernel, write } from '../../src/kernels/device/kernel.ts';
import { createStorage, prepare } from '../../src/kernels/device/runtime.ts';

const entry = (name: string, backend = 'vulkan'): AdapterEntry => ({ name, backend });
const LIST = [entry('SwiftShader Device (Subzero)'), entry('llvmpipe (LLVM 15.0.6, 256 bits)')];

describe('the list that Dawn gives', () => {
  test('is read from its message, including names with quotes', () => {
    const message = `no suitable backends found
Available adapters:
 * backend: 'vulkan', name: 'llvmpipe (LLVM 15.0.6, 256 bits)'
 * backend: 'opengl', name: 'A 'quoted' card'`;
    expect(parseAdapterList(message)).toEqual([
      entry('llvmpipe (LLVM 15.0.6, 256 bits)'),
      entry("A 'quoted' card", 'opengl'),
    ]);
    expect(parseAdapterList('something else')).toEqual([]);
  });

  test.each([
    [0, 0],
    ['1', 1],
    ['LLVM', 1],
    ['swift', 0],
    ['d', 0],
    ['256 bits', 1],
  ])('%j chooses device %i', (chosen, index) => {
    expect(chooseAdapter(LIST, chosen)).toBe(LIST[index]);
  });

  test.each([2, -1, 0.5, '2', '256', 'nvidia', ''])('%j is rejected with the list', (chosen) => {
    expect(() => chooseAdapter(LIST, chosen)).toThrow(NoDeviceError);
    expect(() => chooseAdapter(LIST, chosen)).toThrow(
      '0 SwiftShader Device (Subzero), 1 llvmpipe (LLVM 15.0.6, 256 bits)',
    );
  });

  test('an exact name takes precedence over names that contain it', () => {
    const cards = [entry('Card 9 Ti'), entry('Card 9', 'metal')];
    expect(chooseAdapter(cards, 'card 9')).toBe(cards[1]);
  });

  test('the second of two equal cards cannot be chosen, and the error says so', () => {
    const cards = [entry('H100'), entry('H100'), entry('T4')];
    expect(chooseAdapter(cards, 2)).toBe(cards[2]);
    expect(() => chooseAdapter(cards, 1)).toThrow('an earlier device has the same name');
  });
});

test('every listed device has its capabilities, and the first opens by index and by name', async () => {
  const devices = await listDevices();
  const [first] = devices;
  expect(devices.map(({ index }) => index)).toEqual(devices.map((_, i) => i));
  expect(first?.capabilities?.maxBindingBytes).toBeGreaterThanOrEqual(2 ** 27);
  const byDefault = await openDevice();
  for (const adapter of [0, first!.name.slice(0, 5)]) {
    const device = await openDevice({ adapter });
    expect(device.name).toBe(byDefault.name);
    expect(device.capabilities).toMatchObject(first!.capabilities!);
    device.close();
  }
  byDefault.close();
});

test('a device that is handed over has the same capabilities, also matrix units, and stays open', async () => {
  const device = await openDevice();
  const { tiles: _, ...capabilities } = device.capabilities;
  const handedOver = await openDevice({ device: device.gpu });
  expect(handedOver.capabilities).toMatchObject(capabilities);
  handedOver.close();
  expect(device.isLost()).toBe(false);
  device.close();
});

test('progress of compiling ends with all pipelines, and compiled pipelines are not reported again', async () => {
  const reports: CompileProgress[] = [];
  const device = await openDevice({ onCompile: (progress) => reports.push(progress) });
  const kernels = [1, 2, 3].map((value) =>
    defineKernel({
      name: `fill ${value}`,
      bindings: [write('y')],
      uniforms: [],
      body: `@compute @workgroup_size(1) fn main() { y[0] = ${value}.0; }`,
      grid: [1, 1, 1],
    }),
  );
  const buffer = createStorage(device, 16);
  const launches = kernels.map((kernel) => ({ kernel, ranges: [{ buffer, offset: 0, size: 16 }] }));
  (await prepare(device, launches.slice(0, 2))).destroy();
  expect(reports).toEqual([0, 1, 2].map((done) => ({ done, total: 2 })));
  (await prepare(device, launches)).destroy();
  (await prepare(device, launches)).destroy();
  expect(reports.slice(3)).toEqual([2, 3].map((done) => ({ done, total: 3 })));
  device.close();
});

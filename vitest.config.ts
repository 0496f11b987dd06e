import { existsSync } from 'node:fs';
import { defineConfig } from 'vitest/config';
import { TallyReporter } from './test/tally.ts';

// Two projects: each file runs in a process of its own, two at a time, and files that use a device after those that
// do not: a device lost in one file is not missed in another, and no test waits behind a queue of others.
const DEVICE = ['test/kernels/**/*.test.ts', 'test/graph/**/*.test.ts', 'test/**/*.gpu.test.ts'];

// The second WebGPU implementation, where Debian's chromium brought it: kernels and whole networks again on it.
const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json';
const second = existsSync(SWIFTSHADER);
if (!second)
  console.error(
    'tests: the second implementation (SwiftShader, with chromium) is not here: kernels run on one',
  );

export default defineConfig({
  test: {
    reporters: ['default', new TallyReporter()],
    projects: [
      {
        test: {
          name: 'host',
          include: ['test/**/*.test.{ts,mjs}'],
          exclude: DEVICE,
          pool: 'forks',
          maxWorkers: 2,
          testTimeout: 30_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: 'device',
          include: DEVICE,
          globals: true, // see test/kernels/test-functions.ts
          pool: 'forks',
          maxWorkers: 2,
          testTimeout: 300_000,
          hookTimeout: 300_000,
          sequence: { groupOrder: 1 },
        },
      },
      ...(second
        ? [
            {
              test: {
                name: 'swiftshader',
                include: ['test/kernels/**/*.test.ts', 'test/graph/networks/unet2d.test.ts'],
                globals: true,
                pool: 'forks' as const,
                maxWorkers: 2,
                env: { VK_DRIVER_FILES: SWIFTSHADER },
                testTimeout: 120_000,
                hookTimeout: 120_000,
                sequence: { groupOrder: 2 },
              },
            },
          ]
        : []),
    ],
  },
});

import { defineConfig } from 'vitest/config';
import { TallyReporter } from './test/tally.ts';

// Two projects: what runs on a device goes through one process, one file after the other, so that tests do not
// compete for it and the device is opened once; the rest goes first, in parallel.
const DEVICE = ['test/kernels/**/*.test.ts', 'test/graph/**/*.test.ts', 'test/**/*.gpu.test.ts'];

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
          pool: 'forks',
          maxWorkers: 1,
          isolate: false,
          testTimeout: 120_000,
          hookTimeout: 120_000,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});

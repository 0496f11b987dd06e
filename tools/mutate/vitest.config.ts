// The tests that judge mutations: those of deciding and attacking that need no device and take little time.

import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: [
      'test/pipeline/deciding/**/*.test.ts',
      'test/pipeline/attacking/{attacks,classifier,losses}*.test.ts',
      'test/pipeline/{calibration,familiarity,levels,matching,sequential,staged,statistics,verdict}.test.ts',
    ],
    exclude: ['**/*.gpu.test.ts'],
    testTimeout: 30_000,
  },
});

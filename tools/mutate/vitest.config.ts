// The tests that judge mutations: those of deciding, attacking and the command's shared code that need no device and
// take little time.

import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: [
      'test/pipeline/{calibration,energy,entries,familiarity,grid-texts,levels,matching,results,sequential-rounds,staged,statistics,strategies,trial,verdict}.test.ts',
      'test/pipeline/{interruption,output,output-names,resumed-settings}.test.ts',
      'test/pipeline/attacking/{apgd-trace,attack,attacks,ball,classifier,defended,diffusion-classifier,losses,random,robustness,sha256,square}.test.ts',
    ],
    exclude: ['**/*.gpu.test.ts'],
    testTimeout: 30_000,
  },
});

// A peer for the tests: computes a product, or behaves as its argument says.

import type { Product } from '../../bench/peers/cases.ts';
import { serve } from '../../bench/peers/serve.ts';

const behaviour = process.argv[2];

await serve(async () => {
  if (behaviour === 'absent') throw new Error('no such library');
  return {
    description: `a fake that is ${behaviour}`,
    async open(work, { a, b }) {
      const [rows, depth] = work.inputs.a as [number, number];
      const columns = (work as Product).inputs.b![1]!;
      if (behaviour === 'unable' && work.id === 'first') throw new Error('no products');
      if (behaviour === 'crashing' && work.id === 'first') process.exit(5);
      if (behaviour === 'silent') return new Promise(() => {});
      const y = Float32Array.from({ length: rows * columns }, (_, i) => {
        let sum = behaviour === 'wrong' ? 0.1 : 0;
        for (let k = 0; k < depth; k++)
          sum += a![Math.floor(i / columns) * depth + k]! * b![k * columns + (i % columns)]!;
        return sum;
      });
      return {
        note: 'by hand',
        mostRuns: 3,
        result: async () => y,
        async resident(runs) {
          if (runs > 3) throw new Error(`expected at most 3 runs, got ${runs}`);
        },
        call: async () => {},
        close: () => {},
      };
    },
  };
});

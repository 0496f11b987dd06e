// Networks whose one run predicts for every class (multi-head diffusion: Chen et al. 2024).

import { apply, type Graph } from '../core/graph.ts';
import type { Value } from '../ops/value.ts';
import type { Network } from './evaluation.ts';

/**
 * Makes a network that runs once per view. A sample takes the head of its class from the output
 * [heads·channels, n, h, w]. If there is no unconditional head, the unconditional prediction is the mean of the heads, as
 * under a uniform prior that ignores what x_t tells about the class.
 */
export const multiHead = (
  image: Network['image'],
  run: (graph: Graph, xt: Value, level: Value) => Value,
): Network => ({
  image,
  shared: (graph, xt, level) => [run(graph, xt, level)],
  take: (graph, x, at) => apply(graph, 'pickHead', { channels: image[0] }, { x, ...at }),
  predict: (_, { shared: [prediction] }) => prediction!,
});

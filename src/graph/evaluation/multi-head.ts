// Networks whose one run predicts for every class (multi-head diffusion: Chen et al. 2024).

import { apply, type Graph } from '../core/graph.ts';
import type { Value } from '../ops/value.ts';
import type { Network } from './evaluation.ts';

/**
 * The network that runs once a view, of whose output [heads·channels, n, h, w] a sample takes its class's head. Where
 * no head is the unconditional one, that is their mean: the prediction under a uniform prior that ignores what x_t says
 * of the class.
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

// Balls around an image and the box [-1, 1] of all images: projections with their derivatives. Everything is
// for pixels in [-1, 1], sums are in f64 and in order.

import { clamp } from '../../numbers.ts';
import { distance, l2, type Norm } from '../norms.ts';

type Row = Float32Array | Float64Array;

export const dot = (x: Row, y: Row): number => {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i]! * y[i]!;
  return sum;
};

export const l1 = (x: Row): number => dot(x, x.map(Math.sign));

/** How far an image may move from the first one of its chain: a ball, for pixels in [-1, 1]. */
export interface MoveLimit {
  readonly norm: Norm;
  readonly radius: number;
}

/** Returns the limit of `eps`, a radius for pixels in [0, 1]. */
export const moveLimit = (eps: number, norm: Norm = 'linf'): MoveLimit => ({ norm, radius: 2 * eps });

/** Projects x into the ball around `origin`, and then into [-1, 1]; as origin is an image, x stays in the ball. */
export function projectWithin(x: Float64Array, origin: Row, limit: MoveLimit | undefined): Float64Array {
  return inBall(x, origin, limit).map((value) => clamp(value, -1, 1));
}

function inBall(x: Float64Array, origin: Row, limit: MoveLimit | undefined): Float64Array {
  if (!limit) return x;
  const { norm, radius } = limit;
  if (norm === 'linf') return x.map((value, i) => clamp(value, origin[i]! - radius, origin[i]! + radius));
  const length = distance('l2', x, origin);
  return length <= radius ? x : x.map((value, i) => origin[i]! + (value - origin[i]!) * (radius / length));
}

/** Returns the gradients with respect to x and to origin from the gradient with respect to the projection. */
export function pullBackProjection(
  x: Float64Array,
  origin: Row,
  limit: MoveLimit | undefined,
  gradient: Float64Array,
): { readonly x: Float64Array; readonly origin: Float64Array } {
  const held = inBall(x, origin, limit);
  const kept = gradient.map((value, i) => (Math.abs(held[i]!) <= 1 ? value : 0));
  const nothing = new Float64Array(x.length);
  if (!limit) return { x: kept, origin: nothing };
  const { norm, radius } = limit;
  if (norm === 'linf') {
    const inside = x.map((value, i) => (Math.abs(value - origin[i]!) <= radius ? 1 : 0));
    return {
      x: kept.map((value, i) => value * inside[i]!),
      origin: kept.map((value, i) => value * (1 - inside[i]!)),
    };
  }
  const way = x.map((value, i) => value - origin[i]!);
  const length = l2(way);
  if (length <= radius) return { x: kept, origin: nothing };
  const along = dot(kept, way) / length ** 2;
  const ofX = kept.map((value, i) => (radius / length) * (value - along * way[i]!));
  return { x: ofX, origin: kept.map((value, i) => value - ofX[i]!) };
}

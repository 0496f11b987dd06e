// Results in the order of the source, although images finish in any order.

import { bell } from './bell.ts';

/** The place of an item in its source, counted from 0. */
export interface Positioned {
  readonly position?: number | undefined;
}

/**
 * Numbers the items of a source, runs them, and yields what comes out in the order of the source, without numbers.
 *
 * @param run gives every item back once, in any order, with its number.
 * @param window how many items may be under way or held back: no more are pulled until the oldest is there.
 */
export async function* inInputOrder<A extends object, B extends object>(
  source: AsyncIterable<A>,
  run: (numbered: AsyncIterable<A & Positioned>) => AsyncIterable<B & Positioned>,
  window: number,
): AsyncGenerator<B> {
  const held = new Map<number, B>();
  const room = bell();
  let yielded = 0;
  async function* numbered(): AsyncGenerator<A & Positioned> {
    let position = 0;
    for await (const item of source) {
      while (position - yielded >= window) await room.rung();
      yield { ...item, position: position++ };
    }
  }
  for await (const { position, ...value } of run(numbered())) {
    held.set(position!, value as unknown as B);
    for (let next = held.get(yielded); next; next = held.get(yielded)) {
      held.delete(yielded++);
      room.ring();
      yield next;
    }
  }
}

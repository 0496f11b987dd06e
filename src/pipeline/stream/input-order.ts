// Restores the order of the source, as images finish in any order.

import { notifier } from './notifier.ts';

/** An item with its position in the source, from 0. */
export interface Positioned {
  readonly position?: number | undefined;
}

/**
 * Numbers the items of a source, runs them, and yields the results in the order of the source, without numbers.
 *
 * @param run returns one result per item, in any order, with the number of the item.
 * @param window the largest number of items that are being run or held back. No more are pulled before the oldest is done.
 */
export async function* inInputOrder<A extends object, B extends object>(
  source: AsyncIterable<A>,
  run: (numbered: AsyncIterable<A & Positioned>) => AsyncIterable<B & Positioned>,
  window: number,
): AsyncGenerator<B> {
  const held = new Map<number, B>();
  const room = notifier();
  let yielded = 0;
  async function* numbered(): AsyncGenerator<A & Positioned> {
    let position = 0;
    for await (const item of source) {
      while (position - yielded >= window) await room.wait();
      yield { ...item, position: position++ };
    }
  }
  for await (const { position, ...value } of run(numbered())) {
    held.set(position!, value as unknown as B);
    for (let next = held.get(yielded); next; next = held.get(yielded)) {
      held.delete(yielded++);
      room.notify();
      yield next;
    }
  }
}

import { EventEmitter } from 'node:events';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { interruptible } from '../../src/pipeline/command/shared/interruption.ts';

/** Returns an interruption, its process, and a mock that counts calls of `onStop`. */
function interrupted() {
  const signals = new EventEmitter();
  const onStop = vi.fn();
  return { signals, onStop, interruption: interruptible(signals, onStop) };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe('an interruption', () => {
  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ])('by %s stops at once and drops what is in flight after 5 s', (signal, status) => {
    const { signals, onStop, interruption } = interrupted();
    expect(interruption.status).toBe(0);
    signals.emit(signal);
    expect([interruption.stop.aborted, interruption.drop.aborted]).toEqual([true, false]);
    expect(interruption.status).toBe(status);
    expect(onStop).toHaveBeenCalledTimes(1);
    vi.advanceTimersByTime(4999);
    expect(interruption.drop.aborted).toBe(false);
    vi.advanceTimersByTime(1);
    expect(interruption.drop.aborted).toBe(true);
  });

  it('ends at the second signal with the status of the first', () => {
    const { signals, onStop, interruption } = interrupted();
    signals.emit('SIGTERM');
    signals.emit('SIGINT');
    expect(interruption.drop.aborted).toBe(true);
    expect(interruption.status).toBe(143);
    expect(onStop).toHaveBeenCalledTimes(1);
  });

  it('does not listen after it was released', () => {
    const { signals, interruption } = interrupted();
    signals.emit('SIGINT');
    interruption.release();
    expect(signals.eventNames()).toEqual([]);
    vi.advanceTimersByTime(10_000);
    expect(interruption.drop.aborted).toBe(false);
  });

  it('allows one listener per image in flight without a warning of Node', async () => {
    const { interruption } = interrupted();
    const warned = vi.fn();
    process.on('warning', warned);
    for (const signal of [interruption.stop, interruption.drop])
      for (let image = 0; image < 50; image++) signal.addEventListener('abort', () => image);
    vi.useRealTimers();
    await new Promise(setImmediate); // Node warns one tick later
    process.off('warning', warned);
    expect(warned).not.toHaveBeenCalled();
  });
});

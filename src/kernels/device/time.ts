// Times launches on a device by the host's clock: medians over repetitions that are long enough to measure.

import type { Device } from './device.ts';
import { idle, type Launch, prepare, submit } from './runtime.ts';

export interface Timing {
  /** Median of a run's wall time in milliseconds. */
  readonly ms: number;
  /**
   * An estimate of the median on an otherwise idle machine. On a software adapter it is this process's
   * processor time divided by the number of cores, elsewhere the wall time.
   */
  readonly aloneMs: number;
  /** Milliseconds of the first run, including compilation. */
  readonly firstMs: number;
}

const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1]!;

/** Returns the processor time of this process in milliseconds; 0 in a browser, which does not report it. */
const cpuMs = (): number => {
  if (typeof process === 'undefined' || !process.cpuUsage) return 0;
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

const cores = async (): Promise<number> => (await import('node:os')).availableParallelism();

/** Times `repetitions` repetitions. Each runs the launches often enough to last `repetitionMs`. */
export async function time(
  device: Device,
  launches: readonly Launch[],
  repetitions: number,
  repetitionMs = 25,
): Promise<Timing> {
  const start = performance.now();
  const sequence = await prepare(device, launches);
  const run = async (count: number): Promise<readonly [wall: number, cpu: number]> => {
    const [wall, cpu] = [performance.now(), cpuMs()];
    submit(device, (pass) => {
      for (let i = 0; i < count; i++) sequence.encode(pass);
    });
    await idle(device);
    return [(performance.now() - wall) / count, (cpuMs() - cpu) / count];
  };
  await run(1);
  const firstMs = performance.now() - start;
  const [once] = await run(1);
  const count = Math.max(1, Math.min(1000, Math.ceil(repetitionMs / once)));
  const times: (readonly [number, number])[] = [];
  for (let r = 0; r < repetitions; r++) times.push(await run(count));
  sequence.destroy();
  const ms = median(times.map(([wall]) => wall));
  const aloneMs =
    device.capabilities.software && cpuMs() > 0 ? median(times.map(([, cpu]) => cpu)) / (await cores()) : ms;
  return { ms, aloneMs, firstMs };
}

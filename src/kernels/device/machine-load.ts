// How much processor time this process and the others of the machine use. In a browser, which reports neither, both are 0.

/** Processor time that has passed, in milliseconds, summed over all cores. */
export interface ProcessorTime {
  readonly own: number;
  readonly others: number;
}

/** Returns a function that returns the processor time used so far. */
export async function processorTimes(): Promise<() => ProcessorTime> {
  if (typeof process === 'undefined' || !process.cpuUsage) return () => ({ own: 0, others: 0 });
  const { cpus } = await import('node:os');
  return () => {
    const { user, system } = process.cpuUsage();
    const own = (user + system) / 1000;
    let busy = 0;
    for (const { times } of cpus()) busy += times.user + times.nice + times.sys + times.irq;
    return { own, others: busy - own };
  };
}

/** Returns the number of cores that this process can use. */
export async function usableCores(): Promise<number> {
  if (typeof process === 'undefined' || !process.cpuUsage) return 1;
  return (await import('node:os')).availableParallelism();
}

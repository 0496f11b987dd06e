// How fast is every kernel on this device, and what share of the device's measured peak is that?
//
//   npm run bench -- kernels [--op conv2d,linear] [--match 7x7] [--family plain] [--repetitions 7] [--json FILE]
//
// The cases are the `benchCases` of test/kernels/cases. Rates count the operations of the definition: a convolution by
// Winograd's method does fewer, so its rate may exceed the peak. On a software adapter rates are based on processor time,
// which other processes disturb little; the milliseconds are wall time.

import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { type Device, type Family, openDevice } from '../src/kernels/device/device.ts';
import { type Timing, time } from '../src/kernels/device/time.ts';
import { bytesOf, type Entry, entries, launchesOf } from './entries.ts';
import { measurePeak } from './peak.ts';
import { randomUniform } from './random.ts';

const { values: options } = parseArgs({
  options: {
    op: { type: 'string' },
    match: { type: 'string', default: '' },
    family: { type: 'string' },
    repetitions: { type: 'string', default: '7' },
    json: { type: 'string' },
  },
});

/** Returns values in [-1, 1) that are the same in every run. */
function noise(count: number): Float32Array<ArrayBuffer> {
  const random = randomUniform(1);
  return Float32Array.from({ length: count }, () => 2 * random() - 1);
}

async function timeEntry(device: Device, entry: Entry, repetitions: number): Promise<Timing> {
  const { launches, destroy } = launchesOf(device, entry, noise);
  const timing = await time(device, launches, repetitions);
  destroy();
  return timing;
}

const repetitions = Math.max(1, Number(options.repetitions));
const device = await openDevice(options.family ? { family: options.family as Family } : {});
device.gpu.addEventListener('uncapturederror', (event) => {
  throw new Error((event as GPUUncapturedErrorEvent).error.message);
});
const { description, family } = device.capabilities;
const peak = await measurePeak(device, repetitions);
console.log(`${description}, ${family} family`);
console.log(
  `peak: ${peak.gflops.toFixed(1)} GFLOP/s in registers, ${peak.gbytes.toFixed(1)} GB/s copied; medians of ${repetitions}\n`,
);

const ops = options.op?.split(',');
const chosen = entries.filter(({ op, name }) => (!ops || ops.includes(op)) && name.includes(options.match));
const results = [];
const percent = (share: number) => `${(100 * share).toFixed(0)}%`.padStart(5);
for (const entry of chosen) {
  const timing = await timeEntry(device, entry, repetitions);
  const gflops = entry.flops / timing.aloneMs / 1e6;
  const gbytes = bytesOf(entry) / timing.aloneMs / 1e6;
  results.push({ op: entry.op, name: entry.name, ...timing, gflops, gbytes });
  console.log(
    [
      `${entry.op} ${entry.name}`.padEnd(70),
      `${timing.ms.toFixed(3)} ms`.padStart(12),
      entry.flops ? `${gflops.toFixed(1)} GFLOP/s`.padStart(16) : ''.padStart(16),
      entry.flops ? percent(gflops / peak.gflops) : ''.padStart(5),
      `${gbytes.toFixed(1)} GB/s`.padStart(12),
      percent(gbytes / peak.gbytes),
      `first ${timing.firstMs.toFixed(0)} ms`.padStart(14),
    ].join(' '),
  );
}
if (options.json) {
  await mkdir(dirname(options.json), { recursive: true });
  const report = { device: description, family, node: process.version, repetitions, peak, results };
  await writeFile(options.json, `${JSON.stringify(report, null, 2)}\n`);
}
device.close();

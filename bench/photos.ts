// How many photos of 12 megapixels per second does the shipped model classify, from JPEG files to verdicts? With threads
// that decode, and with everything on the calling thread, one after the other, so that load on the machine meets both.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { loadImages, openClassifier } from '../src/index.ts';
import { openBench } from './run.ts';

const WIDTH = 4000;
const HEIGHT = 3000;

/** Writes a JPEG file of smooth colours with some noise: 2 to 3 MB, as cameras write. */
async function writePhoto(path: string, seed: number): Promise<void> {
  const data = new Uint8Array(WIDTH * HEIGHT * 3);
  const wave = Float64Array.from({ length: WIDTH * 3 }, (_, i) => 90 * Math.sin((i / 900) * (i % 3) + seed));
  let state = seed;
  for (let y = 0, i = 0; y < HEIGHT; y++) {
    const bright = Math.cos(y / 500);
    for (let x = 0; x < WIDTH * 3; x++) {
      state = (Math.imul(state, 1664525) + 1013904223) | 0;
      data[i++] = 110 + wave[x]! * bright + (state >>> 28);
    }
  }
  await sharp(data, { raw: { width: WIDTH, height: HEIGHT, channels: 3 } })
    .jpeg({ quality: 90 })
    .toFile(path);
}

const { values, record } = openBench('photos', {
  model: { type: 'string', default: 'weights/fashion-mnist-multi-head', help: 'a model folder' },
  photos: { type: 'string', default: '40', help: 'photos per run' },
  rounds: { type: 'string', default: '2', help: 'runs of each kind' },
});

const folder = mkdtempSync(join(tmpdir(), 'photos-'));
try {
  const classifier = await openClassifier(values.model);
  const count = Number(values.photos);
  const files = Array.from({ length: 4 }, (_, i) => join(folder, `${i}.jpg`));
  await Promise.all(files.map(writePhoto));
  const each = async function* () {
    for (let i = 0; i < count; i++) yield files[i % files.length]!;
  };
  /** Classifies the photos; returns the results as text, and the rate. */
  const run = async (threads: boolean) => {
    const ask = threads ? { onSummary: () => {} } : { onDecoded: () => {} };
    const results: string[] = [];
    const start = performance.now();
    const { user, system } = process.cpuUsage();
    const loaded = loadImages(each(), classifier.inputShape, ask);
    for await (const result of classifier.classifyAll(loaded, { order: 'input' }))
      results.push(JSON.stringify({ ...result, seconds: undefined }));
    const used = process.cpuUsage();
    const cpu = (used.user + used.system - user - system) / 1000 / count;
    return { text: results.join('\n'), rate: (1000 * count) / (performance.now() - start), cpu };
  };
  const expected = (await run(false)).text;
  for (let round = 0; round < Number(values.rounds); round++)
    for (const threads of [true, false]) {
      const { text, rate, cpu } = await run(threads);
      const same = text === expected;
      record({ threads, photosPerSecond: rate, cpuMsPerPhoto: cpu, sameResults: same });
      const where = threads ? 'decoded in threads' : 'decoded on the calling thread';
      console.log(
        `${where.padEnd(30)} ${rate.toFixed(1)} photos/s, ${cpu.toFixed(0)} ms of processor time per photo${same ? '' : ', OTHER RESULTS'}`,
      );
    }
} finally {
  rmSync(folder, { recursive: true });
}
process.exit(0);

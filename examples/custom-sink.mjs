// @ts-check
// Writes results to a slow consumer, here a compressed file. `pipeline` takes the next result only after the previous one
// was written, and the classifier reads no further ahead than the images in flight, so memory stays bounded.
//
//   node custom-sink.mjs IMAGES results.jsonl.gz

import { createWriteStream } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { findImages, loadImages, openClassifier } from 'diffclass-stream';

const [images, file] = process.argv.slice(2);
if (!images || !file) throw new Error('usage: node custom-sink.mjs IMAGES results.jsonl.gz');

const classifier = await openClassifier('fashion-mnist-multi-head');
const results = classifier.classifyAll(loadImages(findImages([images]), classifier.inputShape));
await pipeline(
  Readable.from(results, { highWaterMark: 1 }),
  async function* (source) {
    for await (const result of source) yield `${JSON.stringify(result)}\n`;
  },
  createGzip(),
  createWriteStream(file),
);
await classifier.close();

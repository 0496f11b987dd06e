// @ts-check
// Runs a classifier in a worker thread: the main thread sends paths and receives results, and never waits for the device.
//
//   node worker-thread.mjs IMAGE...

import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';

if (isMainThread) {
  const paths = process.argv.slice(2);
  const worker = new Worker(fileURLToPath(import.meta.url));
  let missing = paths.length;
  worker.on('message', (result) => {
    console.log(JSON.stringify(result));
    if (--missing === 0) worker.postMessage({ close: true });
  });
  worker.on('error', (error) => {
    throw error;
  });
  for (const path of paths) worker.postMessage({ path });
} else {
  const { openClassifier } = await import('diffclass-stream');
  const classifier = await openClassifier('fashion-mnist-multi-head');
  parentPort?.on('message', async ({ path, close }) => {
    if (close) {
      await classifier.close();
      parentPort?.close();
      return;
    }
    try {
      parentPort?.postMessage(await classifier.classify(path));
    } catch (error) {
      parentPort?.postMessage({ path, message: error instanceof Error ? error.message : String(error) });
    }
  });
}

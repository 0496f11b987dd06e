// @ts-check
// Copies every image below a folder to a folder named after its label. Images that were not decided, or are unlike the
// images that the model was trained on, go to "unsure".
//
//   node sort-folder.mjs PHOTOS SORTED [MODEL]

import { copyFile, mkdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { findImages, loadImages, openClassifier } from 'diffclass-stream';

const [photos, sorted, model = 'fashion-mnist-multi-head'] = process.argv.slice(2);
if (!photos || !sorted) throw new Error('usage: node sort-folder.mjs PHOTOS SORTED [MODEL]');

const classifier = await openClassifier(model);
const images = loadImages(findImages([photos]), classifier.inputShape, { crop: classifier.crop });
for await (const result of classifier.classifyAll(images)) {
  if ('error' in result) {
    console.error(`${result.path}: ${result.error.message}`);
    continue;
  }
  const sure = result.decided && !result.unfamiliar;
  const folder = join(sorted, sure ? result.label.replaceAll(/[^\w -]/g, '_') : 'unsure');
  await mkdir(folder, { recursive: true });
  await copyFile(result.path, join(folder, basename(result.path)));
}
await classifier.close();

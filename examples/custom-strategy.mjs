// @ts-check
// A custom strategy: after every noise level, the worse half of the candidates is dropped.
//
//   node custom-strategy.mjs IMAGE...

import { findImages, loadImages, openClassifier } from 'diffclass-stream';

/**
 * Called once with the model. The function that it returns is called with the trial of an image after each of its rounds,
 * and returns which candidates stay and at which levels they are evaluated next; no levels end the trial.
 *
 * @type {import('diffclass-stream').Strategy}
 */
const halving =
  ({ levels }) =>
  ({ survivors, visited, errors }) => {
    if (visited.length === 0) return { survivors, levels: [0] };
    const total = (/** @type {number} */ candidate) =>
      errors.reduce((sum, row, k) => {
        const { weight = 1 } = levels[visited[k] ?? 0] ?? {};
        return sum + weight * (row[candidate] ?? 0);
      }, 0);
    const ranked = [...survivors].sort((a, b) => total(a) - total(b));
    const kept = ranked.slice(0, Math.ceil(ranked.length / 2)).sort((a, b) => a - b);
    const done = kept.length === 1 || visited.length === levels.length;
    return done
      ? { survivors: ranked.slice(0, 1), levels: [] }
      : { survivors: kept, levels: [visited.length] };
  };

const classifier = await openClassifier('fashion-mnist-multi-head');
const images = loadImages(findImages(process.argv.slice(2)), classifier.inputShape);
for await (const result of classifier.classifyAll(images, { strategy: halving, order: 'input' }))
  console.log(JSON.stringify(result));
await classifier.close();

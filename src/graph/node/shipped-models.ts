// The models that come with the package.

import { ModelError } from '../../errors.ts';
import { readWhole } from '../files/files.ts';
import { readModelConfig } from '../models/families.ts';
import { summarise } from '../models/summarise.ts';
import { folderFiles } from './folder-files.ts';
import { shippedNames, shippedPath } from './model-path.ts';

/** A model that comes with the package. */
export interface ShippedModel {
  /** Its name for `openModel` and `--model`. */
  readonly name: string;
  /** Its folder. */
  readonly path: string;
  /** The first sentence of its README. */
  readonly description: string;
  readonly classes: readonly string[];
  readonly inputShape: readonly [channels: number, height: number, width: number];
}

/** Returns the first sentence of a README's first paragraph, without Markdown's links. */
export function firstSentence(markdown: string): string {
  const paragraph = markdown.split(/\n\s*\n/).find((block) => /^\w/.test(block.trim())) ?? '';
  const text = paragraph.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').replace(/\s+/g, ' ');
  return (/^.*?\.(?=\s|$)/.exec(text.trim())?.[0] ?? text).trim();
}

/**
 * Describes the models that come with the package, by name.
 * @throws ModelError if they are not next to this code, because it was bundled.
 * @example
 * import { shippedModels } from 'diffclass-stream';
 *
 * for (const { name, description } of await shippedModels()) console.log(name, description);
 */
export async function shippedModels(): Promise<readonly ShippedModel[]> {
  const names = await shippedNames();
  if (names.length === 0)
    throw new ModelError(
      'the shipped models are not next to this code, perhaps because it was bundled; give paths of models',
    );
  return Promise.all(
    names.map(async (name) => {
      const path = shippedPath(name);
      const files = folderFiles(path);
      const { labels, inputShape } = summarise(await readModelConfig(files));
      const readme = await readWhole(files, 'README.md').then(
        (bytes) => new TextDecoder().decode(bytes),
        () => '',
      );
      return { name, path, description: firstSentence(readme), classes: labels, inputShape };
    }),
  );
}

// Finds models as the library does, but reports a wrong name as an error of the command line.

import { ModelError, UsageError } from '../../../errors.ts';
import { modelFolder as findFolder, shippedFolder } from '../../../graph/node/model-path.ts';

export { DEFAULT_MODEL } from '../../../graph/node/model-path.ts';

/** The folder of the shipped models; the command line is never bundled, so there is one. */
export const SHIPPED = shippedFolder()!;

/**
 * Returns the folder of a model that is given by path, by the name of a shipped one, or by its id in the Hugging Face hub.
 * @throws UsageError listing the shipped models if there is no model of a name, ModelError if there is none of an id.
 */
export async function modelFolder(model: string): Promise<string> {
  try {
    return await findFolder(model);
  } catch (error) {
    if (error instanceof ModelError && !model.includes('/'))
      throw new UsageError(`--model: ${error.message}`);
    throw error;
  }
}

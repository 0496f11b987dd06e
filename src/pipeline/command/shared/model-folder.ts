// Finds models as the library does, but reports a wrong name as an error of the command line.

import { ModelError, UsageError } from '../../../errors.ts';
import { modelFolder as findFolder, shippedFolder } from '../../../graph/node/model-path.ts';

export { DEFAULT_MODEL } from '../../../graph/node/model-path.ts';

/** The folder of the shipped models; the command line is never bundled, so there is one. */
export const SHIPPED = shippedFolder()!;

/**
 * Returns the folder of a model that is given by path or by the name of a shipped one.
 * @throws UsageError listing the shipped models if there is neither.
 */
export async function modelFolder(model: string): Promise<string> {
  try {
    return await findFolder(model);
  } catch (error) {
    throw error instanceof ModelError ? new UsageError(`--model: ${error.message}`) : error;
  }
}

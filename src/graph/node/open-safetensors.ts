// Safetensors files on disk, by their paths.

import { openTensorFile, type TensorFile } from '../files/safetensors.ts';
import { fileAt } from './folder-files.ts';

/**
 * Opens a safetensors file, or the shards of an index if `path` ends in `.json`. Reads the headers only.
 * @throws ModelError, one sentence naming file and tensor, for anything that is not a sound file.
 */
export const openSafetensors = async (path: string): Promise<TensorFile> => openTensorFile(...fileAt(path));

// Reads files of records (see `images/records.ts`), gzipped or not, by their names.

import { basename, dirname, join } from 'node:path';
import { fault } from '../images/failures.ts';
import {
  type LabelledPixels,
  type RecordImage,
  readCifar,
  readIdx,
  readIdxImages,
} from '../images/records.ts';
import { inflatedFile } from './read-file.ts';

/** The kinds of files that hold records. */
export type RecordKind = 'idx' | 'cifar';

/** Returns the kind of a file by its name; undefined if the name is not one of a file of records. */
export function recordKind(path: string): RecordKind | undefined {
  const name = basename(path).replace(/\.gz$/i, '');
  if (/\.bin$/i.test(name)) return 'cifar';
  return /[.-]idx[0-9]|-ubyte$|\.idx$/i.test(name) ? 'idx' : undefined;
}

/** Returns how many labels a record of a CIFAR batch has. The files of CIFAR-100, with 2, are train.bin and test.bin. */
const cifarLabels = (path: string) => (/^(train|test)\.bin(\.gz)?$/i.test(basename(path)) ? 2 : 1);

/** Returns the file of labels that belongs to a file of images, by the names that MNIST's files have. */
const labelFileOf = (path: string): string =>
  join(dirname(path), basename(path).replace('images', 'labels').replace('idx3', 'idx1'));

/**
 * Reads the images of a file with their labels. The labels of IDX images are in the file `labels`, by default the one
 * next to the images that is named as MNIST's are. Throws `ItemError` if a file is damaged or another kind.
 */
export async function* readRecords(path: string, labels = labelFileOf(path)): AsyncGenerator<LabelledPixels> {
  if (recordKind(path) === 'cifar') yield* readCifar(inflatedFile(path), cifarLabels(path));
  else if (labels === path)
    throw fault('not-found', 'its labels have no name of their own; expected ...-images-idx3-ubyte');
  else yield* readIdx(inflatedFile(path), inflatedFile(labels), labels);
}

/** Reads the images of a file without labels. Throws `ItemError` if the file is damaged or another kind. */
export function readRecordImages(path: string): AsyncGenerator<RecordImage> {
  return recordKind(path) === 'cifar'
    ? readCifar(inflatedFile(path), cifarLabels(path))
    : readIdxImages(inflatedFile(path));
}

// Tells images by the names of files, as folders and archives hold other files too.

/** Extensions of the files that count as images in a folder or an archive. */
export const IMAGE_EXTENSIONS: readonly string[] = [
  'png',
  'jpg',
  'jpeg',
  'jpe',
  'jfif',
  'webp',
  'avif',
  'gif',
  'tif',
  'tiff',
  'bmp',
  'dib',
  'ppm',
  'pgm',
  'pbm',
  'pnm',
  'pam',
  'heic',
  'heif',
  'jp2',
  'jxl',
];

/** Returns the extension of a path in lower case, without the dot; undefined if it has none. */
export const extensionOf = (path: string): string | undefined =>
  /\.([^./\\]+)$/.exec(path)?.[1]?.toLowerCase();

/** Whether a path has the extension of an image. */
export const isImageName = (path: string): boolean => IMAGE_EXTENSIONS.includes(extensionOf(path) ?? '');

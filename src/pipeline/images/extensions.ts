// Which files are images, by their names alone: folders and archives hold other files, too.

/** File name extensions that are taken for images in a folder or an archive. */
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
  'heic',
  'heif',
  'jp2',
  'jxl',
];

/** The extension of a path in lower case, without the dot; undefined if it has none. */
export const extensionOf = (path: string): string | undefined =>
  /\.([^./\\]+)$/.exec(path)?.[1]?.toLowerCase();

/** Whether a path has the extension of an image. */
export const isImageName = (path: string): boolean => IMAGE_EXTENSIONS.includes(extensionOf(path) ?? '');

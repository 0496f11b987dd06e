// Recognises what is often found in place of a model's file: what a clone without Git LFS leaves, and pages of web sites.

/** Bytes of a file that tell what it is. */
export const TELLING_BYTES = 512;

/**
 * Returns what a file is instead of a model's file, and how to get that, given its first bytes; undefined if it may be what
 * its name says.
 */
export function wrongContent(first: Uint8Array): string | undefined {
  const text = String.fromCharCode(...first.subarray(0, TELLING_BYTES)).replace(/^(?:\xef\xbb\xbf)?\s*/, '');
  if (/^version https?:\/\/(?:git-lfs\.github\.com|hawser\.github\.com|git-media\.io)\//.test(text))
    return 'is a Git LFS pointer, not the file itself; fetch the file with "git lfs pull"';
  if (/^<(?:!doctype html|html|head|body|\?xml|!--)/i.test(text))
    return 'is a page of a web site that was saved in place of the file; download the file itself';
  return undefined;
}

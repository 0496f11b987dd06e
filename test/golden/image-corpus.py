"""Decodes a folder of image files with Pillow, for the trial in test/image-corpus.test.ts.

Usage: python3 image-corpus.py FOLDER OUT

FOLDER holds images from anywhere, such as Tests/images of Pillow's source distribution, test/fixtures of sharp's
repository and PngSuite. OUT gets one raw file [height, width, channels] of bytes per image that Pillow decodes, and
index.json, which says for each image its shape, its mode in Pillow, or why Pillow refuses it. Nothing of it is
committed. Needs pillow (13) and numpy.

The first frame of each file is taken, turned upright by its EXIF orientation and without its alpha: grey modes stay
grey, everything else becomes RGB. Pillow clips 16-bit grey to 8 bits; here its high byte is kept, as of 16-bit colours.
"""

import json
import os
import sys
import warnings

import numpy as np
from PIL import Image, ImageFile, ImageOps

GREY = {'1': 'L', 'L': 'L', 'LA': 'L', 'La': 'L'}
# Files without image data of their own, and those that Pillow reads with other programs or that are documents.
OTHER = {'.py', '.rst', '.c', '.h', '.txt', '.md', '.sh', '.ttf', '.icc', '.svg', '.pdf', '.lut', '.gpl', '.json'}


def pixels(image):
    """Returns the 8-bit pixels [height, width, channels] of an image."""
    if image.mode.startswith('I;16'):
        high = np.asarray(image).astype(np.uint32) >> 8
        return high.astype(np.uint8)[:, :, None]
    if image.mode in ('I', 'F'):
        raise ValueError(f'mode {image.mode} has no range of values')
    image = image.convert(GREY.get(image.mode, 'RGB'))
    array = np.asarray(image, np.uint8)
    return array[:, :, None] if array.ndim == 2 else array


def decoded(path):
    with Image.open(path) as image:
        mode, kind = image.mode, image.format
        orientation = image.getexif().get(0x0112, 1)
        return kind, mode, orientation, pixels(ImageOps.exif_transpose(image))


def main(folder, out):
    warnings.simplefilter('ignore')
    Image.MAX_IMAGE_PIXELS = 64 * 2**20
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    os.makedirs(out, exist_ok=True)
    index = {}
    paths = sorted(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
    for path in paths:
        name = os.path.relpath(path, folder)
        if os.path.splitext(path)[1].lower() in OTHER or 'LICENSE' in name or 'README' in name:
            continue
        try:
            kind, mode, orientation, array = decoded(path)
        except Exception as error:  # whatever a decoder raises for a bad file
            index[name] = {'refused': f'{type(error).__name__}: {error}'.split('\n')[0][:120]}
            continue
        height, width, channels = array.shape
        raw = f'{len(index)}.raw'
        with open(os.path.join(out, raw), 'wb') as file:
            file.write(array.tobytes())
        index[name] = {
            'format': kind,
            'mode': mode,
            'orientation': orientation,
            'width': width,
            'height': height,
            'channels': channels,
            'raw': raw,
        }
    with open(os.path.join(out, 'index.json'), 'w') as file:
        json.dump({'folder': os.path.abspath(folder), 'images': index}, file, indent=1)
    print(f'{sum("raw" in entry for entry in index.values())} decoded, {sum("refused" in entry for entry in index.values())} refused')


if __name__ == '__main__':
    main(*sys.argv[1:])

"""Small image files of every kind that is decoded, with their pixels by Pillow. Writes image-files.json.

Each file is in base64 together with its pixels [height, width, channels] of bytes, upright and without alpha. 16-bit
grey keeps its high byte (Pillow clips it). Damaged and unsupported files come with the code of their failure instead.
"""

import base64
import io
import json
import struct

import numpy as np
from PIL import Image, ImageOps

WIDTH, HEIGHT = 13, 7
rng = np.random.default_rng(17)
COLOURS = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
RGB = Image.fromarray(COLOURS)
GREY = RGB.convert('L')
BITS = GREY.point(lambda v: 255 * (v > 127)).convert('1')
INDEXED = RGB.quantize(9)
files = []


def text(data):
    return base64.b64encode(data).decode()


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixels(image):
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith('I;16'):
        return (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)[:, :, None]
    image = image.convert('L' if image.mode in ('1', 'L', 'LA') else 'RGB')
    array = np.asarray(image, np.uint8)
    return array[:, :, None] if array.ndim == 2 else array


def add(name, data, array=None):
    if array is None:
        array = pixels(Image.open(io.BytesIO(data)))
    height, width, channels = array.shape
    files.append(
        {
            'name': name,
            'file': text(data),
            'width': width,
            'height': height,
            'channels': channels,
            'pixels': text(array.astype(np.uint8).tobytes()),
        }
    )


def fails(name, data, code):
    files.append({'name': name, 'file': text(data), 'code': code})


def bmp(bits, compression, rows, palette=b'', masks=b'', height=HEIGHT, header=40):
    """A BMP file of rows as they are stored."""
    info = struct.pack('<IiiHHIIiiII', header, WIDTH, height, 1, bits, compression, len(rows), 0, 0, len(palette) // 4, 0)
    info += b'\0' * (header - 40)
    start = 14 + len(info) + len(masks) + len(palette)
    return b'BM' + struct.pack('<IHHI', start + len(rows), 0, 0, start) + info + masks + palette + rows


def packed(values, fmt):
    """Rows of integers from bottom to top, each padded to 4 bytes."""
    out = b''
    for row in values[::-1]:
        line = b''.join(struct.pack(fmt, int(v)) for v in row)
        out += line + b'\0' * (-len(line) % 4)
    return out


# BMP
for name, image in (('1 bit', BITS), ('8 bits, grey', GREY), ('8 bits, palette', INDEXED), ('24 bits', RGB)):
    add(f'BMP, {name}', saved(image, 'BMP'))
add('BMP, 32 bits', saved(RGB.convert('RGBA'), 'BMP'))
wide = COLOURS.astype(np.uint32)
r, g, b = wide[..., 0], wide[..., 1], wide[..., 2]
add('BMP, 16 bits', bmp(16, 0, packed((r >> 3) << 10 | (g >> 3) << 5 | b >> 3, '<H')))
add(
    'BMP, 16 bits with masks',
    bmp(16, 3, packed((r >> 3) << 11 | (g >> 2) << 5 | b >> 3, '<H'), masks=struct.pack('<III', 0xF800, 0x7E0, 0x1F)),
)
add(
    'BMP, 32 bits with masks',
    bmp(32, 3, packed(r << 24 | g << 16 | b << 8, '<I'), masks=struct.pack('<III', 0xFF000000, 0xFF0000, 0xFF00)),
)
top_down = COLOURS[::-1, :, ::-1]
add('BMP, top-down', bmp(24, 0, b''.join(row.tobytes() + b'\0' for row in top_down[::-1]), height=-HEIGHT), COLOURS[..., :])
grey_palette = b''.join(bytes((v, 255 - v, v // 2, 0)) for v in range(256))
indices = np.asarray(GREY)
colours_of = np.frombuffer(grey_palette, np.uint8).reshape(256, 4)[:, 2::-1]
nibbles = indices[::-1] % 16
rows4 = b''.join(bytes(list(row[::2] * 16 + np.append(row[1::2], 0)) + [0]) for row in nibbles)
add('BMP, 4 bits', bmp(4, 0, rows4, grey_palette[:64]), colours_of[nibbles[::-1]])
# Runs: 5 of index 1, literals 2 3 4, then the end of the line; a skip of 3 pixels and 1 row; the end.
runs8 = b'\x05\x01\x00\x03\x02\x03\x04\x00\x00\x00\x02\x06\x00\x02\x03\x01\x04\x09\x00\x01'
expected = np.zeros((HEIGHT, WIDTH), int)
expected[0, :5], expected[0, 5:8] = 1, (2, 3, 4)
expected[1, 0:2] = 6
expected[2, 5:9] = 9
add('BMP, RLE8', bmp(8, 1, runs8, grey_palette), colours_of[expected[::-1]])
runs4 = b'\x05\x12\x00\x03\x34\x50\x00\x00\x02\x67\x00\x01'
expected = np.zeros((HEIGHT, WIDTH), int)
expected[0, :5], expected[0, 5:8] = (1, 2, 1, 2, 1), (3, 4, 5)
expected[1, 0:2] = (6, 7)
add('BMP, RLE4', bmp(4, 2, runs4, grey_palette[:64]), colours_of[expected[::-1]])
whole = saved(RGB, 'BMP')
fails('BMP without its last row', whole[: -WIDTH * 3], 'truncated')
fails('BMP, RLE8 that ends early', bmp(8, 1, runs8[:-3], grey_palette), 'truncated')
fails('BMP with a colour beyond its palette', bmp(8, 0, packed(indices | 128, '<B'), grey_palette[:64]), 'corrupt')
fails('BMP with JPEG data', bmp(24, 4, whole[54:]), 'unsupported-format')

# PNM
header = f'{WIDTH} {HEIGHT}\n'.encode()


def plain(values):
    return b'# a comment\n' + b'\n'.join(b' '.join(str(v).encode() for v in row.ravel()) for row in values) + b'\n'


deep = (wide * 257 + 3).clip(0, 65535)
twelve = wide * 16
bits = np.asarray(BITS)
add('PBM', saved(BITS, 'PPM'))
add('PBM, plain', b'P1\n' + header + b''.join(''.join('01'[not v] for v in row).encode() + b'\n' for row in bits), bits[..., None] * 255)
add('PGM', saved(GREY, 'PPM'))
add('PGM, plain', b'P2 ' + header + b'255\n' + plain(indices), indices[..., None])
add('PPM', saved(RGB, 'PPM'))
add('PPM, plain', b'P3\n#c\n' + header + b'255\n' + plain(COLOURS))
add('PPM with a largest value of 31', b'P6 ' + header + b'31\n' + (COLOURS >> 3).tobytes())
add('PPM of 16 bits', b'P6\n' + header + b'65535\n' + deep.astype('>u2').tobytes(), deep >> 8)
add('PPM of 12 bits', b'P6\n' + header + b'4095\n' + twelve.astype('>u2').tobytes(), np.round(twelve / 4095 * 65535).astype(int) >> 8)
pam = f'P7\nWIDTH {WIDTH}\nHEIGHT {HEIGHT}\nDEPTH %d\nMAXVAL 255\nTUPLTYPE %s\nENDHDR\n'
alpha = np.concatenate([COLOURS, COLOURS[..., :1]], 2)
add('PAM, RGB_ALPHA', (pam % (4, 'RGB_ALPHA')).encode() + alpha.tobytes(), COLOURS)
add('PAM, GRAYSCALE', (pam % (1, 'GRAYSCALE')).encode() + indices.tobytes(), indices[..., None])
fails('PPM without its last byte', saved(RGB, 'PPM')[:-1], 'truncated')
fails('PGM, plain, without its last number', b'P2 ' + header + b'255\n' + plain(indices[:-1]), 'truncated')
fails('PGM with a value beyond the largest', b'P5 ' + header + b'100\n' + indices.tobytes(), 'corrupt')
fails('PGM with letters', b'P2 ' + header + b'255\n1 x2 ' + plain(indices), 'corrupt')

# GIF: the colour beneath transparent pixels stays, as in PNG
transparent = INDEXED.copy()
transparent.info['transparency'] = 3
add('GIF', saved(INDEXED, 'GIF'), np.asarray(INDEXED.convert('RGB')))
add('GIF, interlaced', saved(INDEXED, 'GIF', interlace=1))
add('GIF, transparent', saved(transparent, 'GIF', transparency=3))
gif = saved(INDEXED, 'GIF', interlace=0)
screen = gif[:6] + struct.pack('<HH', WIDTH + 4, HEIGHT + 2) + gif[10:]
frame = bytearray(screen)
frame[frame.index(b',\0\0\0\0') + 1] = 2
add('GIF with a frame smaller than its screen', bytes(frame))
fails('half a GIF', gif[: len(gif) * 2 // 3], 'truncated')

# Orientation
for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    add(f'PNG, orientation {orientation}', saved(RGB, 'PNG', exif=exif))
    add(f'TIFF, orientation {orientation}', saved(RGB, 'TIFF', tiffinfo={0x0112: orientation}))

# TIFF: every compression
smooth = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize((40, 32), Image.BICUBIC)
for compression in ('raw', 'tiff_lzw', 'packbits', 'tiff_deflate', 'tiff_adobe_deflate', 'jpeg'):
    add(f'TIFF, {compression}', saved(smooth, 'TIFF', compression=compression))
for compression in ('tiff_ccitt', 'group3', 'group4'):
    add(f'TIFF, {compression}', saved(smooth.convert('1'), 'TIFF', compression=compression))
deflated = saved(smooth, 'TIFF', compression='tiff_deflate')
flipped = bytearray(deflated)
for at in range(600, 604):
    flipped[at] ^= 0x5A
fails('TIFF, deflate with flipped bits', bytes(flipped), 'corrupt')
jpeg = saved(smooth, 'TIFF', compression='jpeg')
fails('TIFF, JPEG without its tables', jpeg[: len(jpeg) - 40], 'corrupt')
for compression, code in (('lzma', 'unsupported-format'), ('zstd', 'unsupported-format')):
    fails(f'TIFF, {compression}', saved(smooth, 'TIFF', compression=compression), code)
fails('TIFF of floats', saved(GREY.convert('F'), 'TIFF'), 'unsupported-format')


def planar_tiled():
    """16 x 16 tiles, one plane of 8 bits per colour."""
    tiles = [np.full((16, 16), v, np.uint8).tobytes() for v in (10, 20, 30)]
    entries = [
        (256, 3, 1, 16), (257, 3, 1, 16), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, 3),
        (284, 3, 1, 2), (322, 3, 1, 16), (323, 3, 1, 16), (324, 4, 3, 0), (325, 4, 3, 0),
    ]  # fmt: skip
    after = 8 + 2 + 12 * len(entries) + 4
    data = after + 24
    out = b'II*\0' + struct.pack('<IH', 8, len(entries))
    for tag, kind, count, value in entries:
        value = {324: after, 325: after + 12}.get(tag, value)
        out += struct.pack('<HHII', tag, kind, count, value)
    out += struct.pack('<I', 0)
    out += struct.pack('<6I', data, data + 256, data + 512, 256, 256, 256)
    return out + b''.join(tiles)


fails('TIFF, tiles with separate planes', planar_tiled(), 'unsupported-format')

# CMYK by Pillow's formula, and 16 bits
cmyk = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8), 'CMYK')
add('TIFF, CMYK', saved(cmyk, 'TIFF'))
add('TIFF, 16-bit grey', saved(Image.fromarray(deep[..., 0].astype(np.uint16)), 'TIFF'))
add('PNG, 16-bit grey', saved(Image.fromarray(deep[..., 0].astype(np.uint16)), 'PNG'))

with open('image-files.json', 'w') as file:
    json.dump(files, file, indent=1)
    file.write('\n')
print(len(files), 'files')

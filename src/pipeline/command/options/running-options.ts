// Options about running: the device, and how much is read and evaluated at once.

import { z } from 'zod';
import type { OptionSet } from '../../option.ts';
import { auto, count, flag, maybe, text } from '../../option-schemas.ts';

/** The choices of a precision. */
const PRECISIONS = ['auto', 'f32', 'f16'] as const;

export const RUNNING = {
  device: {
    flags: '--device <n|name>',
    help: 'the device to run on: its number or a part of its name, as "doctor" lists them (the first); of two devices of the same name only the first can be chosen',
    schema: text,
    expected: 'a number or a part of a name, as "diffclass-stream doctor" lists them',
  },
  precision: {
    flags: '--precision <name>',
    help: 'how evaluations store weights and activations: f32, f16 (half the memory; the device needs shader-f16), or auto: f16 if it was measured faster on this device and differences between candidates stay the same; in software always f32',
    schema: z.enum(PRECISIONS),
    expected: 'auto, f32 or f16',
    fallback: 'auto',
  },
  tune: {
    flags: '--tune',
    help: 'measure anew which kernels are fastest on the device, for at most 20 s; results do not depend on it',
    ...maybe,
  },
  noTune: {
    flags: '--no-tune',
    help: 'do not measure kernels, as the first run on an unknown device does',
    ...maybe,
  },
  fix: {
    flags: '--fix',
    help: 'fix what is wrong, if that is safe',
    ...flag,
  },
  run: {
    flags: '--run',
    help: 'classify a sample image however long it takes, and not only within 5 s',
    ...flag,
  },
  perClass: {
    flags: '--per-class <n>',
    help: 'take at most this many images of each class, the first ones',
    ...count,
  },
  null: {
    flags: '-0, --null',
    help: 'paths on standard input end in NUL',
    ...flag,
  },
  maxPixels: {
    flags: '--max-pixels <n>',
    help: 'largest number of pixels of an image by its header, as 150000000 for photos of 150 megapixels; larger images are failed items (default: 67108864)',
    ...count,
  },
  batch: {
    flags: '--batch <n>',
    help: 'evaluations per dispatch',
    schema: auto,
    expected: 'auto or an integer of 1 or more',
    fallback: 'auto',
  },
  concurrency: {
    flags: '--concurrency <n>',
    help: 'images in flight',
    schema: auto,
    expected: 'auto or an integer of 1 or more',
    fallback: 'auto',
  },
} as const satisfies OptionSet;

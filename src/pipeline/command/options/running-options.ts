// Options that say how a command runs: what it reads, and how much at once.

import { auto, flag, integer, optionsOf, text } from './option.ts';

const { given, spec } = optionsOf('Running');

export const RUNNING = {
  device: given({
    flags: '--device <n|name>',
    help: 'the device to run on: its number or a part of its name, as "doctor" lists them (the first); of two devices of the same name only the first can be chosen',
    schema: text,
    wanted: 'a number or a part of a name, as "diffclass-stream doctor" lists them',
  }),
  fix: spec({
    flags: '--fix',
    help: 'do what helps, where that is safe',
    schema: flag,
    wanted: 'no value',
    fallback: false,
  }),
  run: spec({
    flags: '--run',
    help: 'classify a sample image however long it takes, and not only within 5 s',
    schema: flag,
    wanted: 'no value',
    fallback: false,
  }),
  perClass: given({
    flags: '--per-class <n>',
    help: 'take at most so many images of each class, the first',
    schema: integer(1),
    wanted: 'an integer of 1 or more',
  }),
  null: spec({
    flags: '-0, --null',
    help: 'paths on standard input end in NUL',
    schema: flag,
    wanted: 'no value',
    fallback: false,
  }),
  batch: spec({
    flags: '--batch <n>',
    help: 'evaluations of a dispatch',
    schema: auto,
    wanted: 'auto or an integer of 1 or more',
    fallback: 'auto',
  }),
  concurrency: spec({
    flags: '--concurrency <n>',
    help: 'images in flight',
    schema: auto,
    wanted: 'auto or an integer of 1 or more',
    fallback: 'auto',
  }),
} as const;

// Options about the model, and the classes that it chooses between.

import { z } from 'zod';
import { DEFAULT_MODEL } from '../../../graph/node/model-path.ts';
import type { OptionSet } from '../../option.ts';
import { integer, names, text } from '../../option-schemas.ts';

/** Parses FILE or FILE:WEIGHT; a colon that no number follows is part of the name. */
const lora = text.transform((value) => {
  const [, file = value, weight = '1'] = /^(.+):([-+]?(?:\d+\.?\d*|\.\d+))$/.exec(value) ?? [];
  return { file, weight: Number(weight) };
});

/** Parses FILE or FILE:TOKEN; what looks like a path is no token. */
const embedding = text.transform((value) => {
  const [, file, token] = /^(.+):([^:/\\]+)$/.exec(value) ?? [];
  return file === undefined || /\.(?:safetensors|pt|bin)$/.test(token!)
    ? { file: value }
    : { file, token: token! };
});

export const MODEL = {
  model: {
    flags: '--model <dir|file|name>',
    help: 'a model folder, a single file of Stable Diffusion (.safetensors, .ckpt), the name of a shipped model, or org/name[@revision] in the Hugging Face cache',
    schema: text,
    expected: 'a model folder, a file, or the name of a model',
    fallback: DEFAULT_MODEL,
  },
  lora: {
    flags: '--lora <file[:weight]>',
    help: 'merge a LoRA into the model, with this weight (default: 1); may be given several times',
    schema: z.array(lora),
    expected: 'a file, or a file, a colon and a number',
    several: true,
  },
  embedding: {
    flags: '--embedding <file[:token]>',
    help: "text models: add a textual inversion as a word of the prompts (default: the file's own word); may be given several times",
    schema: z.array(embedding),
    expected: 'a file, or a file, a colon and a word',
    several: true,
  },
  prediction: {
    flags: '--prediction <name>',
    help: "what the network predicts: epsilon or v (default: what the model's files say; checkpoints of Stable Diffusion 2.x that do not say it are measured)",
    schema: z.enum(['epsilon', 'v']),
    expected: 'epsilon or v',
  },
  vae: {
    flags: '--vae <file|dir>',
    help: "an autoencoder in place of the model's: a single file, or a folder of diffusers",
    schema: text,
    expected: 'a file or folder',
  },
  labels: {
    flags: '--labels <names>',
    help: 'choose between these classes: A,B,...; a text model takes any names',
    schema: names,
    expected: 'names separated by commas',
  },
  template: {
    flags: '--template <text>',
    help: 'text models: prompt of a label ("a photo of a {}."); if given several times, each class has several prompts and the best counts',
    schema: z.array(z.string().includes('{}')),
    expected: 'a text with {} in place of the name',
    several: true,
  },
  prompts: {
    flags: '--prompts <file>',
    help: 'candidates from a CSV file: prompt,classname,classidx in each row',
    schema: text,
    expected: 'a CSV file',
  },
  config: {
    flags: '--config <file>',
    help: 'arguments of EDMPrecond as JSON, for those that the file does not hold',
    schema: text,
    expected: 'a JSON file',
  },
  imageSize: {
    flags: '--image-size <n>',
    help: 'side that images are resized and cropped to (pixel models have a fixed one)',
    schema: integer(1, 65_536),
    expected: 'an integer of 1 or more',
  },
  sizeConditioning: {
    flags: '--size-conditioning <h,w,top,left>',
    help: "Stable Diffusion XL: the height and width that the network is told of every image, and the crop (each file's own)",
    schema: z
      .string()
      .regex(/^[1-9]\d{0,6},[1-9]\d{0,6},\d{1,7},\d{1,7}$/)
      .transform((list) => {
        const [height, width, top, left] = list.split(',').map(Number) as [number, number, number, number];
        return { height, width, top, left };
      }),
    expected: 'height, width, top and left: 1024,1024,0,0',
  },
} as const satisfies OptionSet;

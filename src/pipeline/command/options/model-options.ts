// Options that say which model it is, and between which classes it chooses.

import { z } from 'zod';
import { DEFAULT_MODEL } from '../../../graph/node/model-path.ts';
import { integer, names, optionsOf, text } from './option.ts';

const { given, spec } = optionsOf('Model');

export const MODEL = {
  model: spec({
    flags: '--model <dir|name>',
    help: 'a model folder, or the name of a shipped model',
    schema: text,
    wanted: 'a model folder or the name of a shipped model',
    fallback: DEFAULT_MODEL,
  }),
  labels: given({
    flags: '--labels <names>',
    help: 'choose between these classes: A,B,...; a text model takes any names',
    schema: names,
    wanted: 'names separated by commas',
  }),
  template: given({
    flags: '--template <text>',
    help: 'text models: prompt of a label ("a photo of a {}."); several times: several prompts a class, the best counts',
    schema: z.array(z.string().includes('{}')),
    wanted: 'a text with {} in the place of the name',
    several: true,
  }),
  prompts: given({
    flags: '--prompts <file>',
    help: 'candidates from a CSV file: prompt,classname,classidx, a row each',
    schema: text,
    wanted: 'a CSV file',
  }),
  config: given({
    flags: '--config <file>',
    help: 'arguments of EDMPrecond as JSON, for what the file does not say of its network',
    schema: text,
    wanted: 'a JSON file',
  }),
  imageSize: given({
    flags: '--image-size <n>',
    help: 'side the image is resized and cropped to (pixel models have their own)',
    schema: integer(1, 65_536),
    wanted: 'an integer of 1 or more',
  }),
} as const;

import { describe, expect, it } from 'vitest';
import { ModelError } from '../../../src/errors.ts';
import { parseCard } from '../../../src/graph/folders/card.ts';

describe('parseCard', () => {
  it.each<[what: string, card: unknown, message: string | RegExp]>([
    ['unknown keys', { temprature: 1 }, /^f: .*temprature/],
    ['no timesteps', { timesteps: [] }, /^f: timesteps: /],
    ['a timestep twice', { timesteps: [3, 1, 3] }, 'f: timestep 3 is listed twice'],
    ['a negative timestep', { timesteps: [-1] }, /^f: timesteps\.0: /],
    ['sigmas', { sigmas: [1] }, "f: expected timesteps, which are the model's levels, got sigmas"],
    ['weights alone', { weights: [1] }, 'f: expected timesteps for the weights, got none'],
    [
      'too few weights',
      { timesteps: [1, 2], weights: [1] },
      'f: expected 2 weights for as many timesteps, got 1',
    ],
    ['a negative weight', { timesteps: [1], weights: [-1] }, /^f: weights\.0: /],
    ['no weight at all', { timesteps: [1, 2], weights: [0, 0] }, 'f: all weights are 0'],
    ['no temperature', { temperature: 0 }, /^f: temperature: /],
    ['another loss', { loss: 'lpips' }, /^f: loss: /],
    ['an array', [], /^f: /],
  ])('refuses %s', (_what, card, message) => {
    expect(() => parseCard(card, 1000, 'f')).toThrow(ModelError);
    expect(() => parseCard(card, 1000, 'f')).toThrow(message);
  });

  it('may be empty', () => {
    expect(parseCard({}, 1000, 'f')).toEqual({});
  });
});

import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ModelError } from '../../../src/errors.ts';
import { checkTensors } from '../../../src/graph/files/expected-tensors.ts';
import type { TensorFile, TensorInfo } from '../../../src/graph/files/safetensors.ts';
import { clipTextTensors, withoutBuffers } from '../../../src/graph/networks/clip-text.ts';
import { parseClipTextConfig } from '../../../src/graph/networks/clip-text-config.ts';

const golden = (name: string, file: string) =>
  readFileSync(new URL(`../../golden/cliptext-${name}/${file}`, import.meta.url));
const json = (name: string) => JSON.parse(golden(name, 'config.json').toString()) as Record<string, unknown>;
const minimal = { architectures: ['CLIPTextModel'] };

/** Returns the names, shapes and dtypes of the weights of a golden file. */
function tensorsOf(name: string): Map<string, TensorInfo> {
  const bytes = golden(name, 'model.safetensors');
  const header = JSON.parse(bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE(0))).toString()) as Record<
    string,
    Pick<TensorInfo, 'dtype' | 'shape'>
  >;
  const { __metadata__, ...entries } = header;
  return new Map(
    Object.entries(entries).map(([key, { dtype, shape }]) => [
      key,
      { name: key, dtype, shape, file: 'm', begin: 0, bytes: 0 },
    ]),
  );
}

describe('parseClipTextConfig', () => {
  it("fills in transformers' defaults", () => {
    expect(parseClipTextConfig(minimal, 'c')).toEqual({
      vocabSize: 49408,
      hiddenSize: 512,
      intermediateSize: 2048,
      numHiddenLayers: 12,
      numAttentionHeads: 8,
      maxPositionEmbeddings: 77,
      hiddenAct: 'quick-gelu',
      layerNormEps: 1e-5,
      projectionDim: undefined,
    });
  });

  it('reads the length of the vector of a text', () => {
    const config = { ...minimal, architectures: ['CLIPTextModelWithProjection'] };
    expect(parseClipTextConfig(config, 'c').projectionDim).toBe(512);
    expect(parseClipTextConfig({ ...config, projection_dim: 1280 }, 'c').projectionDim).toBe(1280);
  });

  it.each([
    ['quick-gelu', 'quick-gelu', 1e-5],
    ['gelu', 'gelu', 1e-6],
    ['gelu-new', 'gelu-tanh', 1e-5],
  ])('reads what transformers saves: %s', (name, hiddenAct, layerNormEps) => {
    expect(parseClipTextConfig(json(name), 'c')).toMatchObject({ hiddenAct, layerNormEps });
  });

  it('uses the model type if there is no architecture', () => {
    expect(parseClipTextConfig({ model_type: 'clip_text_model' }, 'c').hiddenSize).toBe(512);
  });

  it.each<[what: string, config: Record<string, unknown>, message: RegExp]>([
    [
      'T5',
      { architectures: ['T5EncoderModel'] },
      /^c: expected a text encoder .* got "T5EncoderModel", a text encoder of .*Flux/,
    ],
    ['something else', { architectures: ['toString'] }, /^c: expected a text encoder .* got "toString"$/],
    ['another model type', { model_type: 'bert' }, /^c: expected a text encoder .* got "bert"$/],
    ['no type at all', {}, /^c: expected a text encoder .* got "nothing"$/],
    [
      'an activation',
      { ...minimal, hidden_act: 'swish' },
      /^c: hidden_act: expected quick_gelu or gelu or .*, got "swish"$/,
    ],
    [
      'an activation with the name of a property of objects',
      { ...minimal, hidden_act: 'constructor' },
      /hidden_act: expected .*, got "constructor"$/,
    ],
    [
      'heads',
      { ...minimal, num_attention_heads: 7 },
      /^c: num_attention_heads 7 does not divide hidden_size 512$/,
    ],
    ['layers', { ...minimal, num_hidden_layers: 0 }, /^c: num_hidden_layers: /],
    [
      'quantised weights',
      { ...minimal, quantization_config: { bits: 4 } },
      /^c: quantization_config: expected weights that are not quantised/,
    ],
  ])('refuses %s', (_, config, message) => {
    expect(() => parseClipTextConfig(config, 'c')).toThrow(ModelError);
    expect(() => parseClipTextConfig(config, 'c')).toThrow(message);
  });
});

describe('clipTextTensors', () => {
  const file = (tensors: ReadonlyMap<string, TensorInfo>) => ({ path: 'm', tensors }) as TensorFile;

  it.each(['quick-gelu', 'gelu', 'gelu-new'])('are those that transformers saves: %s', (name) => {
    const expected = clipTextTensors(parseClipTextConfig(json(name), 'c'));
    const found = checkTensors(expected, withoutBuffers(file(tensorsOf(name))));
    expect(found.size).toBe(expected.length);
    expect([...found.keys()].every((key) => key.startsWith('text_model.'))).toBe(true);
  });

  it('accepts the tensors that may be missing or extra', () => {
    expect(tensorsOf('quick-gelu').has('text_model.embeddings.position_ids')).toBe(true);
    expect(tensorsOf('gelu').has('final_layer_norm.bias')).toBe(true);
  });

  it('rejects a missing and an unexpected tensor', () => {
    const expected = clipTextTensors(parseClipTextConfig(json('quick-gelu'), 'c'));
    const tensors = tensorsOf('quick-gelu');
    const bias = tensors.get('text_model.final_layer_norm.bias')!;
    tensors.delete(bias.name);
    tensors.set('text_projection.weight', { ...bias, name: 'text_projection.weight' });
    expect(() => checkTensors(expected, withoutBuffers(file(tensors)))).toThrow(
      'm: missing tensor "text_model.final_layer_norm.bias"; unexpected tensor "text_projection.weight"',
    );
  });
});

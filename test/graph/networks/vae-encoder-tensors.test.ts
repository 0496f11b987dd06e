import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ModelError } from '../../../src/errors.ts';
import type { TensorFile } from '../../../src/graph/files/safetensors.ts';
import { vaeEncoderParameters, vaeEncoderTensors } from '../../../src/graph/networks/vae-encoder.ts';
import { readVaeEncoderConfig } from '../../../src/graph/networks/vae-encoder-config.ts';
import { fileAt } from '../../../src/graph/node/folder-files.ts';
import { openSafetensors } from '../../../src/graph/node/open-safetensors.ts';

const golden = async (name: string) => {
  const folder = join(import.meta.dirname, '..', '..', 'golden', `vae-${name}`, 'vae');
  return {
    config: await readVaeEncoderConfig(...fileAt(join(folder, 'config.json'))),
    file: await openSafetensors(join(folder, 'diffusion_pytorch_model.safetensors')),
  };
};
const attention = 'encoder.mid_block.attentions.0';

describe('vaeEncoderTensors', () => {
  it.each(['shift', 'plain'])("are the encoder's of diffusers' %s", async (name) => {
    const { config, file } = await golden(name);
    const saved = [...file.tensors.values()]
      .filter((info) => /^(encoder|quant_conv)\./.test(info.name))
      .map((info) => [info.name, info.shape] as const);
    const recorded = vaeEncoderTensors(config).map(({ name, shape }) => [name, shape] as const);
    expect(Object.fromEntries(recorded)).toEqual(Object.fromEntries(saved));
    await file.close();
  });
});

describe('vaeEncoderParameters', () => {
  it('reads attention by its old names, matrices and 1x1 convolutions alike', async () => {
    for (const name of ['sd', 'conv']) {
      const { config, file } = await golden(name);
      const value = vaeEncoderParameters(file, config)(`${attention}.to_out.0.weight`, []);
      expect(await value.values()).toEqual(await file.readF32(`${attention}.proj_attn.weight`));
      await file.close();
    }
  });

  it('ignores the decoder, and rejects any other unexpected tensor', async () => {
    const { config, file } = await golden('sd');
    const changed = (change: (tensors: Map<string, unknown>) => void): TensorFile => {
      const tensors = new Map(file.tensors);
      change(tensors);
      return { ...file, path: 'm', tensors };
    };
    const info = file.tensors.get('encoder.conv_in.bias')!;
    const refusal = (change: (tensors: Map<string, unknown>) => void): string => {
      try {
        vaeEncoderParameters(changed(change), config);
      } catch (error) {
        expect(error).toBeInstanceOf(ModelError);
        return (error as ModelError).message;
      }
      return 'accepted';
    };
    expect(refusal((all) => all.set('decoder.anything', { ...info, name: 'decoder.anything' }))).toBe(
      'accepted',
    );
    expect(
      refusal((all) =>
        [...all.keys()]
          .filter((key) => /^(decoder|post_quant_conv)\./.test(key))
          .forEach((key) => {
            all.delete(key);
          }),
      ),
    ).toBe('accepted');
    expect(refusal((all) => all.set('loss.logvar', { ...info, name: 'loss.logvar' }))).toBe(
      'm: unexpected tensor "loss.logvar"',
    );
    expect(refusal((all) => all.delete('quant_conv.bias'))).toBe('m: missing tensor "quant_conv.bias"');
    const weight = 'encoder.conv_in.weight';
    expect(refusal((all) => all.set(weight, { ...info, name: weight, shape: [8, 3, 1, 1] }))).toBe(
      `m: wrong shape "${weight}": expected [8, 3, 3, 3], got [8, 3, 1, 1]`,
    );
    await file.close();
  });
});

import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ModelError } from '../../../src/errors.ts';
import { checkTensors } from '../../../src/graph/files/expected-tensors.ts';
import type { SafetensorsDtype, TensorInfo } from '../../../src/graph/files/safetensors.ts';
import { unet2dTensors } from '../../../src/graph/networks/unet2d.ts';
import { parseUNet2DConfig } from '../../../src/graph/networks/unet2d-config.ts';

const golden = JSON.parse(
  readFileSync(new URL('../../golden/unet2d-tensors.json', import.meta.url), 'utf8'),
) as {
  cases: { config: Record<string, unknown>; tensors: Record<string, number[]> }[];
};

describe('unet2dTensors', () => {
  it.each(golden.cases)("has diffusers' names and shapes: $config", ({ config, tensors }) => {
    const recorded = unet2dTensors(parseUNet2DConfig(config, 'config.json'));
    expect(Object.fromEntries(recorded.map(({ name, shape }) => [name, shape]))).toEqual(tensors);
  });
});

describe('checkTensors', () => {
  const { config, tensors } = golden.cases[1]!;
  const expected = unet2dTensors(parseUNet2DConfig(config, 'config.json'));
  const file = (change: (tensors: Map<string, number[]>) => void, dtype: SafetensorsDtype = 'F16') => {
    const all = new Map(Object.entries(tensors));
    change(all);
    const info = (name: string, shape: number[]): TensorInfo => ({
      name,
      dtype,
      shape,
      file: 'm',
      begin: 0,
      bytes: 0,
    });
    return { path: 'm', tensors: new Map([...all].map(([name, shape]) => [name, info(name, shape)])) };
  };
  const refusal = (...args: Parameters<typeof file>): string => {
    try {
      checkTensors(expected, file(...args));
    } catch (error) {
      expect(error).toBeInstanceOf(ModelError);
      return (error as ModelError).message;
    }
    return 'accepted';
  };

  it('finds every tensor by its current name', () => {
    const found = checkTensors(
      expected,
      file(() => {}),
    );
    expect([...found.keys()].sort()).toEqual(Object.keys(tensors).sort());
    expect(found.get('conv_in.bias')!.name).toBe('conv_in.bias');
  });

  it('finds attention by its old names', () => {
    const found = checkTensors(
      expected,
      file((all) => {
        for (const [now, before] of [
          ['to_q', 'query'],
          ['to_k', 'key'],
          ['to_v', 'value'],
          ['to_out.0', 'proj_attn'],
        ])
          for (const [name, shape] of [...all])
            if (name.includes(`.${now}.`)) {
              all.delete(name);
              all.set(name.replace(now!, before!), shape);
            }
      }),
    );
    expect([...found.keys()].sort()).toEqual(Object.keys(tensors).sort());
    expect(found.get('mid_block.attentions.0.to_out.0.bias')!.name).toBe(
      'mid_block.attentions.0.proj_attn.bias',
    );
  });

  it('names the file, the tensor and the fault', () => {
    expect(refusal((all) => all.delete('conv_in.bias'))).toBe('m: missing tensor "conv_in.bias"');
    expect(refusal((all) => all.set('conv_inn.bias', [8]))).toBe('m: unexpected tensor "conv_inn.bias"');
    expect(refusal((all) => all.set('conv_in.bias', [1, 8]))).toBe(
      'm: wrong shape "conv_in.bias": expected [8], got [1, 8]',
    );
    expect(
      refusal((all) => {
        all.delete('conv_in.bias');
        all.set('conv.bias', [8]);
      }),
    ).toBe('m: missing tensor "conv_in.bias"; unexpected tensor "conv.bias"');
  });

  it('names the first of many faults, and their number', () => {
    const count = expected.length;
    expect(refusal((all) => all.clear())).toBe(
      `m: ${count} missing tensors, first ${expected
        .slice(0, 3)
        .map(({ name }) => `"${name}"`)
        .join(', ')}`,
    );
    expect(refusal(() => {}, 'I8')).toMatch(
      new RegExp(
        `^m: ${count} wrong dtypes, first "time_embedding.linear_1.weight": expected F32, F16 or BF16, got I8`,
      ),
    );
  });

  it('rejects a tensor under its old and its current name', () => {
    const extra = 'mid_block.attentions.0.query.bias';
    expect(refusal((all) => all.set(extra, [16]))).toBe(`m: unexpected tensor "${extra}"`);
  });
});

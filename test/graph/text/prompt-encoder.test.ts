// Tests tokenizer and text encoder together against transformers (test/golden/cliptext.py).

import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { ModelError } from '../../../src/errors.ts';
import { folderFiles } from '../../../src/graph/node/folder-files.ts';
import { openSafetensors } from '../../../src/graph/node/open-safetensors.ts';
import {
  encodePrompts as encode,
  type PromptEncoderOptions,
  readTextEncoder,
  type TextEncoderFolders,
} from '../../../src/graph/text/prompt-encoder.ts';
import type { Device } from '../../../src/kernels/device/device.ts';
import { maxDifference, testDevice } from '../../kernels/harness.ts';

const goldens = join(import.meta.dirname, '..', '..', 'golden');
const golden = join(goldens, 'cliptext-prompts');
const prompts = JSON.parse(readFileSync(join(golden, 'prompts.json'), 'utf8')) as string[];
const temporary = mkdtempSync(join(tmpdir(), 'prompts-'));
cpSync(join(golden, 'tokenizer'), temporary, { recursive: true });
for (const file of ['vocab.json', 'merges.txt'])
  cpSync(join(goldens, 'cliptokenizer', file), join(temporary, file));
afterAll(() => rmSync(temporary, { recursive: true }));
const folders = { files: folderFiles('/'), tokenizer: temporary, textEncoder: join(golden, 'text_encoder') };

/** Encodes prompts with the folders of a tokenizer and a text encoder. */
const encodePrompts = async (
  device: Device,
  from: TextEncoderFolders,
  texts: readonly string[],
  options?: PromptEncoderOptions,
) => encode(device, await readTextEncoder(from), texts, options);

async function expectedEncodings(): Promise<Float32Array> {
  const io = await openSafetensors(join(golden, 'io.safetensors'));
  const values = await io.readF32('last_hidden_state');
  await io.close();
  return values;
}

describe('encodePrompts', () => {
  it('equals transformers for any chunk size', async () => {
    const device = await testDevice();
    const expected = await expectedEncodings();
    const scale = Math.max(...expected.map(Math.abs));
    const { contexts: together, pooled } = await encodePrompts(device, folders, prompts);
    expect(pooled).toHaveLength(0);
    expect(together).toHaveLength(prompts.length * 77 * 12);
    expect(maxDifference(together, expected).difference / scale).toBeLessThan(2e-5);
    const inTwos = await encodePrompts(device, folders, prompts, { chunk: 2 });
    expect(inTwos.contexts).toEqual(together);
    const halves = await encodePrompts(device, folders, prompts, { weightDtype: 'f16' });
    expect(maxDifference(halves.contexts, expected).difference / scale).toBeLessThan(2e-5); // the weights of the file are in f16
  });

  it('frees its buffers', async () => {
    const device = await testDevice();
    const destroyed: boolean[] = [];
    const { gpu } = device;
    const make = gpu.createBuffer.bind(gpu);
    const spy = vi.spyOn(gpu, 'createBuffer').mockImplementation((descriptor) => {
      const buffer = make(descriptor);
      const index = destroyed.push(false) - 1;
      const destroy = buffer.destroy.bind(buffer);
      buffer.destroy = () => {
        destroyed[index] = true;
        return destroy();
      };
      return buffer;
    });
    await encodePrompts(device, folders, prompts.slice(0, 1));
    spy.mockRestore();
    await new Promise(setImmediate);
    expect(destroyed.length).toBeGreaterThan(20);
    expect(destroyed).not.toContain(false);
  });

  it('needs no device if there are no prompts', async () => {
    expect((await encodePrompts({} as Device, folders, [])).contexts).toHaveLength(0);
  });

  it.each([
    [
      'a vocabulary of another size',
      'cliptext-quick-gelu',
      /config\.json: expected tokens below vocab_size 50, got token 3513 from the tokenizer in .*; use the folders tokenizer and text_encoder of one model$/,
    ],
    [
      'fewer positions',
      'cliptext-gelu',
      /config\.json: expected texts of at most 20 tokens \(max_position_embeddings\), got texts of 77 from the tokenizer in .*$/,
    ],
    ['no weights', 'cliptokenizer', /config\.json: no such file/],
  ])('refuses a text encoder with %s', async (_, name, message) => {
    const device = await testDevice();
    const refused = encodePrompts(device, { ...folders, textEncoder: join(goldens, name) }, prompts);
    await expect(refused).rejects.toThrow(ModelError);
    await expect(refused).rejects.toThrow(message);
  });
});

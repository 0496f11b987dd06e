// Textual inversions against diffusers' load_textual_inversion, and the files that are refused.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ModelError } from '../../../src/errors.ts';
import { addEmbeddings } from '../../../src/graph/adapters/add-embeddings.ts';
import { readEmbedding } from '../../../src/graph/adapters/embedding-file.ts';
import { openTensorFile } from '../../../src/graph/files/safetensors.ts';
import { jsonFile, withVirtualFiles } from '../../../src/graph/files/virtual-files.ts';
import { fileAt, folderFiles } from '../../../src/graph/node/folder-files.ts';
import { openModel } from '../../../src/graph/node/open-model.ts';
import { writeSafetensors } from '../../../src/graph/node/write-safetensors.ts';
import { readTokenizer } from '../../../src/graph/text/tokenizer-files.ts';
import { prepareImage } from '../../../src/pipeline/images/prepare.ts';
import { decodeFile } from '../../../src/pipeline/node/decode.ts';

const goldens = join(import.meta.dirname, '..', '..', 'golden');
const base = join(goldens, 'pipeline-sd1');
const at = (name: string): string => join(goldens, 'embedding', name);
const expected = JSON.parse(readFileSync(at('expected.json'), 'utf8')) as {
  prompts: string[];
  ids: number[][];
  errors: { t: number; errors: number[] }[];
};
const FILES = ['toy.safetensors', 'style.pt', 'two.bin'];

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'embedding-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const readNamed = async (name: string, token?: string) => {
  const embedding = await readEmbedding(...fileAt(name));
  return { ...embedding, token: token ?? embedding.token ?? 'word' };
};

const zeros = (...shape: number[]) => ({
  dtype: 'F32' as const,
  shape,
  data: new Float32Array(shape.reduce((all, side) => all * side, 1)),
});

describe('textual inversions', () => {
  it('give the token ids of diffusers', async () => {
    const files = await addEmbeddings(
      folderFiles(base),
      await Promise.all(FILES.map((name) => readNamed(at(name)))),
    );
    const { encode } = await readTokenizer(files, 'tokenizer');
    for (const [i, prompt] of expected.prompts.entries())
      expect([...encode(prompt)].slice(0, 24), prompt).toEqual(expected.ids[i]);
  });

  it('give the errors of diffusers, to a relative 1e-4', async () => {
    const model = await openModel(base, {
      embeddings: FILES.map((name) => ({ file: at(name) })),
      noiseFile: join(base, 'noise.safetensors'),
      levels: () => expected.errors.map(({ t }) => ({ t, weight: 1 })),
      candidates: () => expected.prompts.map((prompt, classidx) => ({ prompt, label: prompt, classidx })),
    });
    expect(model.overlays?.embeddings).toMatch(
      /^toy\.safetensors [0-9a-f]{16} as <cat-toy>, style\.pt [0-9a-f]{16} as easystyle, two\.bin [0-9a-f]{16} as <two>$/,
    );
    const pixels = await decodeFile(join(base, 'images/0.png'));
    model.encode(0, prepareImage(pixels, model.inputShape, { crop: model.crop }));
    for (const [level, { errors }] of expected.errors.entries()) {
      const of = (value: number) => new Uint32Array(errors.length).fill(value);
      const candidate = Uint32Array.from(errors.keys());
      const actual = await model.errors({ slot: of(0), candidate, level: of(level), noise: of(level) });
      errors.forEach((error, i) => {
        expect(Math.abs(actual[i]! / error - 1)).toBeLessThan(1e-4);
      });
    }
    model.close();
  });

  it('use all vectors of a word with capitals, and of a word of a saved tokenizer', async () => {
    const named = await addEmbeddings(folderFiles(base), [await readNamed(at('style.pt'), 'EasyStyle')]);
    const { encode } = await readTokenizer(named, 'tokenizer');
    expect([...encode('easystyle')].slice(0, 5)).toEqual([525, 527, 528, 529, 526]);
    expect([...encode('EasyStyle_2')].slice(0, 3)).toEqual([525, 529, 526]);
    const saved = withVirtualFiles(
      folderFiles(base),
      new Map([['tokenizer/added_tokens.json', jsonFile('added', { '<x>': 527, '<x>_1': 528 })]]),
    );
    expect([...(await readTokenizer(saved, 'tokenizer')).encode('<x> <x>_1')].slice(0, 5)).toEqual([
      525, 527, 528, 528, 526,
    ]);
  });

  it('extend the table of tokens without changing it', async () => {
    const name = 'text_encoder/model.safetensors';
    const [own, [toy]] = [
      await openTensorFile(folderFiles(base), name),
      [await readNamed(at('toy.safetensors'))],
    ];
    const file = await openTensorFile(await addEmbeddings(folderFiles(base), [toy]), name);
    const table = 'embeddings.token_embedding.weight';
    const [before, after] = [await own.readF32(table), await file.readF32(table)];
    expect(file.tensors.get(table)!.shape).toEqual([528, 24]);
    expect(after.subarray(0, before.length)).toEqual(before);
    expect(after.subarray(before.length)).toEqual(toy.vectors[0]!.values);
    const part = new Float32Array(40);
    await file.readPart(table, before.length - 20, part);
    expect(part).toEqual(after.subarray(before.length - 20, before.length + 20));
    for (const other of own.tensors.keys())
      if (other !== table) expect(await file.read(other)).toEqual(await own.read(other));
    await own.close();
    await file.close();
  });

  it("may be A1111's safetensors, whose word is the file's name", async () => {
    const path = join(folder, 'moody.safetensors');
    await writeSafetensors(path, [['emb_params', zeros(2, 24)]]);
    const model = await openModel(base, {
      embeddings: [{ file: path }],
      candidates: () => ['moody', 'a'].map((prompt, classidx) => ({ prompt, label: prompt, classidx })),
    });
    expect(model.overlays?.embeddings).toMatch(/as moody$/);
    model.close();
  });

  it.each<[what: string, tensors: [string, ReturnType<typeof zeros>][], message: RegExp]>([
    [
      'another width',
      [['<x>', zeros(768)]],
      /expected vectors of 24 numbers for the model's text_encoder, got 768; this embedding is for another base model$/,
    ],
    [
      'two words',
      [
        ['<x>', zeros(24)],
        ['<y>', zeros(24)],
      ],
      /expected the vectors of one word \(a textual inversion\), got 2 tensors, first "<[xy]>"$/,
    ],
    [
      'a word of the model',
      [['cat</w>', zeros(24)]],
      /the model has the token "cat<\/w>" already; name another one with FILE:TOKEN$/,
    ],
    ['a matrix of another rank', [['<x>', zeros(1, 1, 24)]], /got the shape \[1, 1, 24\]$/],
    ['too many vectors', [['<x>', zeros(76, 24)]], /expected a vector or 1 to 75 vectors/],
    ['no vectors', [['<x>', zeros(0, 24)]], /expected a vector or 1 to 75 vectors/],
    [
      'no numbers',
      [['<x>', { ...zeros(1, 24), data: new Float32Array(24).fill(Number.NaN) }]],
      /expected finite numbers, got NaN at 0$/,
    ],
    [
      'other numbers of vectors',
      [
        ['clip_l', zeros(2, 24)],
        ['clip_g', zeros(1, 24)],
      ],
      /equally many vectors for both text encoders/,
    ],
    ['nothing', [], /got no tensors$/],
  ])('are refused in a sentence: %s', async (_, tensors, message) => {
    const path = join(folder, 'x.safetensors');
    await writeSafetensors(path, tensors);
    const attempt = readNamed(path).then((embedding) => addEmbeddings(folderFiles(base), [embedding]));
    await expect(attempt).rejects.toThrow(message);
    await expect(attempt).rejects.toThrow(`${path}: `);
  });

  it('are refused in a sentence: of SDXL, twice, and for a model without text', async () => {
    const [sdxl, toy] = [await readNamed(at('sdxl.safetensors')), await readNamed(at('toy.safetensors'))];
    await expect(addEmbeddings(folderFiles(base), [sdxl])).rejects.toThrow(
      'has vectors for two text encoders (clip_l and clip_g), but the model has one; this embedding is for SDXL',
    );
    await expect(addEmbeddings(folderFiles(base), [toy, toy])).rejects.toThrow(
      'the token "<cat-toy>" is given twice',
    );
    await expect(addEmbeddings(folderFiles(join(goldens, 'pipeline-dit')), [toy])).rejects.toThrow(
      'the model has no text encoder, so that it takes no embeddings',
    );
  });

  it('of which 600 are damaged: read or refused in a sentence', async () => {
    let state = 99;
    const random = (below: number): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    const sources = FILES.map((name) => readFileSync(at(name)));
    const path = join(folder, 'fuzz');
    let refused = 0;
    for (let trial = 0; trial < 600; trial++) {
      const bytes = Buffer.from(sources[trial % 3]!);
      for (let k = 0; k < 1 + random(4); k++) bytes[random(bytes.length)] = random(256);
      writeFileSync(path, random(8) === 0 ? bytes.subarray(0, random(bytes.length)) : bytes);
      try {
        await addEmbeddings(folderFiles(base), [await readNamed(path)]);
      } catch (error) {
        expect(error, String((error as Error).stack)).toBeInstanceOf(ModelError);
        expect((error as Error).message).not.toContain('\n');
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(100);
  });
});

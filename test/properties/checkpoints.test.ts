// Single files that anyone may have made: with tensors left out, added, renamed, of other shapes or types, and files of
// torch.save with bytes changed. Each opens, or is refused with one sentence. Nothing else is thrown, and nothing is run.

import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ModelError, UnsupportedError } from '../../src/errors.ts';
import { singleFile } from '../../src/graph/checkpoints/single-file.ts';
import type { Files } from '../../src/graph/files/files.ts';
import { openTensorFile, type SafetensorsDtype } from '../../src/graph/files/safetensors.ts';
import { DTYPE_BITS } from '../../src/graph/files/safetensors-header.ts';
import { openBytes } from '../../src/graph/files/virtual-files.ts';
import { type VirtualTensor, virtualSafetensors } from '../../src/graph/files/virtual-safetensors.ts';
import { describeFiles } from '../../src/graph/models/describe.ts';
import { openSafetensors } from '../../src/graph/node/open-safetensors.ts';
import { memoryFiles } from '../graph/memory-files.ts';
import { type SingleGolden, unpackSingle } from '../graph/single-golden.ts';
import { runs } from './runs.ts';

interface Shape {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
}

let models: (readonly Shape[])[];
let pickled: Uint8Array;
beforeAll(async () => {
  const goldens: SingleGolden[] = [];
  for (const name of ['sd1', 'sd2', 'xl']) goldens.push(await unpackSingle(name));
  models = [];
  for (const { path } of goldens) {
    const file = await openSafetensors(path('single.safetensors'));
    models.push([...file.tensors.values()].map(({ name, dtype, shape }) => ({ name, dtype, shape })));
    await file.close();
  }
  pickled = readFileSync(goldens[0]!.path('single.ckpt'));
  for (const { remove } of goldens) remove();
});
afterAll(() => {
  expect(Object.keys(globalThis)).not.toContain('pwned');
});

/** A vocabulary of few words, which is read faster than CLIP's. */
const vocabulary = memoryFiles(
  'vocabulary',
  new Map([['merges.txt', new TextEncoder().encode('#version: 0.2\na t\n')]]),
);

/** Returns a folder that holds one file. */
const folderOf = (open: Files['open']): Files => ({
  name: 'folder',
  describe: (name) => name,
  list: async () => ['a.safetensors'],
  open,
});

/** Presents a file as a model and describes it; reads the weights that it then has. */
async function tried(open: Files['open']): Promise<void> {
  try {
    const { files } = await singleFile(folderOf(open), 'a.safetensors', { vocabulary });
    const { problems } = await describeFiles(files, { imageSize: 16 });
    for (const problem of problems) expect(problem).toMatch(/^[^\n\r]+$/);
    const file = await openTensorFile(files, 'text_encoder/model.safetensors');
    const [first] = file.tensors.keys();
    if (first !== undefined) await file.read(first);
    await file.close();
  } catch (error) {
    if (!(error instanceof ModelError) && !(error instanceof UnsupportedError)) throw error;
    expect(error.message).toMatch(/^\S[^\n\r]*\S$/);
  }
}

const change = fc.record({
  kind: fc.constantFrom('drop', 'rank', 'size', 'dtype', 'rename', 'add'),
  place: fc.double({ min: 0, max: 0.999_999, noNaN: true }),
  number: fc.constantFrom(0, 1, 2, 3, 7, 9, 1000, 2 ** 31, 2 ** 52),
  dtype: fc.constantFrom<SafetensorsDtype>('F64', 'I64', 'BOOL', 'BF16', 'F8_E4M3', 'U8'),
  name: fc.constantFrom(
    'model.diffusion_model.input_blocks.99999999.0.in_layers.0.weight',
    'model.diffusion_model.input_blocks.1.1.proj_in.weight',
    'model.diffusion_model.label_emb.0.0.weight',
    'cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight',
    'first_stage_model.encoder.down.7.block.0.conv1.weight',
    'constructor',
    'v_pred',
    'a\nb',
  ),
});
type Change = typeof change extends fc.Arbitrary<infer T> ? T : never;

function changed(shapes: readonly Shape[], { kind, place, number, dtype, name }: Change): readonly Shape[] {
  const at = Math.floor(place * shapes.length);
  const own = shapes[at];
  if (!own) return shapes;
  const other = (tensor: Partial<Shape>) =>
    shapes.map((shape, i) => (i === at ? { ...shape, ...tensor } : shape));
  switch (kind) {
    case 'drop': {
      // A whole network, or one tensor.
      const prefix =
        number % 2 === 0
          ? own.name
          : own.name
              .split('.')
              .slice(0, 1 + (number % 5))
              .join('.');
      return shapes.filter((tensor) => !tensor.name.startsWith(prefix));
    }
    case 'rank':
      return other({ shape: number % 2 === 0 ? own.shape.slice(1) : [...own.shape, 1] });
    case 'size':
      return other({ shape: own.shape.map((side, axis) => (axis === number % 2 ? number : side)) });
    case 'dtype':
      return other({ dtype });
    case 'rename':
      return other({ name });
    default:
      return [...shapes, { name, dtype: 'F32', shape: [number % 10, 3] }];
  }
}

/** Opens a safetensors file of zeros. */
const zeros = (shapes: readonly Shape[]) => async () =>
  virtualSafetensors(
    new Map(
      shapes
        .filter(({ dtype, shape }) =>
          Number.isSafeInteger(shape.reduce((count, side) => count * side, DTYPE_BITS[dtype])),
        )
        .map(({ name, dtype, shape }): [string, VirtualTensor] => [
          name,
          { dtype, shape, read: async (_, into) => void into.fill(0) },
        ]),
    ),
  );

test('safetensors with tensors changed', { timeout: 3_600_000 }, async () => {
  await fc.assert(
    fc.asyncProperty(fc.nat(2), fc.array(change, { minLength: 1, maxLength: 4 }), (which, all) =>
      tried(zeros(all.reduce(changed, models[which]!))),
    ),
    runs(10),
  );
});

test('files of torch.save with bytes changed', { timeout: 3_600_000 }, async () => {
  // The pickle is at the beginning, the directory at the end; what lies between is numbers.
  const place = fc.oneof(
    fc.nat(60_000),
    fc.nat(40_000).map((back) => -1 - back),
  );
  const bytes = fc.array(fc.tuple(place, fc.nat(255)), { minLength: 1, maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(bytes, async (all) => {
      const broken = Uint8Array.from(pickled);
      for (const [at, byte] of all) broken[at < 0 ? broken.length + at : at] = byte;
      await tried(async () => openBytes(broken));
    }),
    runs(10),
  );
});

test('a checkpoint that would run a command when Python reads it is refused', async () => {
  const command = 'globalThis.pwned = 1';
  const pickle = Buffer.from(
    `\x80\x02}X\x0a\x00\x00\x00state_dictcposix\nsystem\nX${String.fromCharCode(command.length)}\x00\x00\x00${command}\x85Rs.`,
    'latin1',
  );
  const opened = singleFile(
    folderOf(async () => openBytes(pickle)),
    'a.ckpt',
    { vocabulary },
  );
  await expect(opened).rejects.toThrow('the pickle names posix.system, which is not supported');
});

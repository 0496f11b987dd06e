import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ModelError } from '../../../src/errors.ts';
import { readTorch as readTorchFile, type TorchTensor } from '../../../src/graph/files/torch-file.ts';
import { openBytes } from '../../../src/graph/files/virtual-files.ts';
import { inferArguments } from '../../../src/graph/folders/edm-pickle.ts';
import { convertEdm } from '../../../src/graph/node/convert-edm.ts';
import { readModel } from '../../../src/graph/node/open-model.ts';
import { openSafetensors } from '../../../src/graph/node/open-safetensors.ts';
import { writeSafetensors } from '../../../src/graph/node/write-safetensors.ts';

const golden = (name: string) => fileURLToPath(new URL(`../../golden/edmpickle/${name}`, import.meta.url));
const readTorch = (bytes: Uint8Array, path: string) => readTorchFile(openBytes(bytes), path);

/** Reads all elements of a tensor. */
async function bytesOf(tensor: TorchTensor): Promise<Uint8Array> {
  const bytes = new Uint8Array(
    tensor.shape.reduce((count, side) => count * side, tensor.storage.elementBytes),
  );
  await tensor.read(0, bytes);
  return bytes;
}

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'edmpickle-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Returns the shape and the bytes of every tensor. */
async function contents(path: string) {
  const file = await openSafetensors(path);
  try {
    const entries = [...file.tensors.values()].map(async ({ name, dtype, shape }) => [
      name,
      { dtype, shape, bytes: Buffer.from(await file.read(name)).toString('hex') },
    ]);
    return Object.fromEntries(await Promise.all(entries));
  } finally {
    await file.close();
  }
}

describe('a model folder of', () => {
  it.each(['cond.pkl', 'cond.pt', 'uncond.pkl', 'uncond.pt'])(
    '%s has the same tensors, and opens',
    async (name) => {
      const out = join(folder, name);
      const labels = name.startsWith('cond') ? ['ant', 'bee', 'cat'] : undefined;
      const { tensors, config } = await convertEdm(golden(name), out, labels ? { labels } : {});
      const expected = await contents(golden(`${name.split('.')[0]}.safetensors`));
      expect(await contents(join(out, 'model.safetensors'))).toEqual(expected);
      expect(tensors).toBe(Object.keys(expected).length);
      expect(config).toMatchObject(
        labels
          ? { img_resolution: 4, img_channels: 3, label_dim: 3, augment_dim: 2, channel_mult: [1, 2] }
          : { img_resolution: 2, img_channels: 1, model_channels: 4, channel_mult: [1], channel_mult_emb: 1 },
      );
      expect(config.attn_resolutions).toEqual(labels ? [2] : []);
      if (labels) expect((await readModel(out)).labels).toEqual(labels);
    },
  );

  it('a state dict whose names do not determine its architecture needs a configuration', async () => {
    const out = join(folder, 'converted');
    const config = join(folder, 'config.json');
    writeFileSync(config, JSON.stringify({ num_blocks: 2 }));
    await expect(convertEdm(golden('cond.pt'), out, { config })).rejects.toThrow(/missing|lacks|is not/i);
    writeFileSync(config, JSON.stringify({ sigma_data: 0.25, label_dropout: 0.1 }));
    const converted = await convertEdm(golden('cond.pt'), out, { config });
    expect(converted.config).toMatchObject({ sigma_data: 0.25, label_dropout: 0.1, label_dim: 3 });
    await expect(convertEdm(golden('views.pt'), out)).rejects.toThrow('give --config FILE');
    await expect(convertEdm(join(folder, 'none.pkl'), out)).rejects.toThrow('no such file');
  });
});

it('the ImageNet-64 network is inferred from names and shapes', () => {
  const shapes: Record<string, number[]> = {
    'model.map_layer0.weight': [768, 192],
    'model.map_label.weight': [768, 1000],
    'model.out_norm.weight': [192],
    'model.enc.64x64_conv.weight': [192, 3, 3, 3],
  };
  for (const [side, width] of [
    [64, 192],
    [32, 384],
    [16, 576],
    [8, 768],
  ] as const)
    for (const block of [0, 1, 2]) {
      shapes[`model.enc.${side}x${side}_block${block}.conv0.weight`] = [width, 1, 3, 3];
      if (side < 64) shapes[`model.enc.${side}x${side}_block${block}.qkv.weight`] = [3 * width, width, 1, 1];
    }
  expect(inferArguments(new Map(Object.entries(shapes).map(([name, shape]) => [name, { shape }])))).toEqual({
    model_type: 'DhariwalUNet',
    img_resolution: 64,
    img_channels: 3,
    label_dim: 1000,
    augment_dim: 0,
    model_channels: 192,
    channel_mult: [1, 2, 3, 4],
    channel_mult_emb: 4,
    num_blocks: 3,
    attn_resolutions: [32, 16, 8],
  });
});

describe('tensors', () => {
  it.each(['views.pt', 'views-legacy.pt'])('of %s keep views, shared storages and dtypes', async (name) => {
    const actual = (await readTorch(readFileSync(golden(name)), name)) as Map<string, TorchTensor>;
    const expected = JSON.parse(readFileSync(golden('views.json'), 'utf8'));
    expect([...actual.keys()]).toEqual(Object.keys(expected));
    expect(actual.get('offset')!.storage).toBe(actual.get('whole')!.storage);
    const path = join(folder, 'views.safetensors');
    const floats = [...actual].filter(([, { storage }]) => storage.dtype !== 'F64');
    await writeSafetensors(
      path,
      await Promise.all(
        floats.map(async ([key, tensor]) => {
          const { dtype, shape } = tensor;
          return [key, { dtype, shape, data: await bytesOf(tensor) }] as const;
        }),
      ),
    );
    const file = await openSafetensors(path);
    for (const [key, { shape }] of floats) {
      expect(shape, key).toEqual(expected[key][0]);
      expect([...(await file.readF32(key))], key).toEqual(expected[key][1]);
    }
    await file.close();
    const double = await bytesOf(actual.get('double')!);
    const view = new DataView(double.buffer, double.byteOffset);
    expect([view.getFloat64(0, true), view.getFloat64(8, true)]).toEqual(expected.double[1]);
  });
});

/** Returns a pickle of protocol 2 from its operations; strings stand for their characters. */
const pickle = (...parts: readonly (string | number)[]) =>
  Buffer.concat([
    Buffer.from([0x80, 2]),
    ...parts.map((part) => (typeof part === 'number' ? Buffer.from([part]) : Buffer.from(part, 'latin1'))),
  ]);
const u32 = (n: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(n);
  return bytes.toString('latin1');
};
const text = (value: string) => `X${u32(value.length)}${value}`;

describe('rejects, without executing anything:', () => {
  it.each([
    ['os.system', pickle('cos\nsystem\n', text('true'), 0x85, 'R.'), 'names os.system'],
    [
      'posix.system, named on the stack',
      pickle(text('posix'), text('system'), 0x93, text('true'), 0x85, 'R.'),
      'names posix.system',
    ],
    ['builtins.eval', pickle('cbuiltins\neval\n', text('1'), 0x85, 'R.'), 'names builtins.eval'],
    ['builtins.getattr', pickle('cbuiltins\ngetattr\n.'), 'names builtins.getattr'],
    ['torch.hub.load', pickle('ctorch.hub\nload\n.'), 'names torch.hub.load'],
    [
      'an attribute of an allowed name',
      pickle('ccollections\nOrderedDict.__init__\n.'),
      'names collections.OrderedDict.__init__',
    ],
    [
      'a class of torch that is called',
      pickle('ctorch.nn.modules.linear\nLinear\n', 'K\x05', 0x85, 'R.'),
      'calls torch.nn.modules.linear.Linear',
    ],
    [
      'a class constructed with arguments',
      pickle('ctraining.networks\nLinear\n', 'K\x05', 0x85, 0x81, '.'),
      'calls training.networks.Linear',
    ],
    ['INST', pickle('(', text('true'), 'ios\nsystem\n.'), 'operation 0x69'],
    ['OBJ', pickle('(ctorch.nn\nLinear\no.'), 'operation 0x6f'],
    ['an extension code', pickle(0x82, 1, '.'), 'operation 0x82'],
    ['protocol 5', Buffer.from([0x80, 5, 0x4e, 0x2e]), 'expected a protocol up to 4'],
    ['bytes of a giant length', pickle('B', u32(0xffffffff), 'x.'), 'cut short'],
    ['a frame of a giant length', pickle(0x95, '\xff\xff\xff\xff\xff\xff\xff\xff', 'N.'), 'cut short'],
    ['no end', pickle('N'), 'cut short'],
    ['an empty file', Buffer.alloc(0), 'cut short'],
    ['an empty stack', pickle('.'), 'stack is empty'],
    ['a missing memo entry', pickle('h\x07.'), 'nothing was remembered as 7'],
    ['marks without end', pickle('('.repeat(1000), '.'), 'stack is empty'],
    ['a persistent id', pickle(text('x'), 'Q.'), 'a persistent id is not a storage'],
    [
      'a storage that is not in the file',
      pickle('ctorch.storage\n_load_from_bytes\n', 'C\x03abc', 0x85, 'R.'),
      'the stack is empty',
    ],
    ['a dictionary with a tuple as key', pickle('}', ')', 'N', 's.'), 'expected text or a number as the key'],
  ])('%s', async (_, bytes, message) => {
    await expect(readTorch(bytes, 'bad.pkl')).rejects.toThrow(ModelError);
    await expect(readTorch(bytes, 'bad.pkl')).rejects.toThrow(new RegExp(`^bad\\.pkl: .*(${message})`));
  });

  it('modules that contain themselves', async () => {
    // {'ema': net}, net._modules = {'m': net}
    const state = [
      '(',
      text('class_name'),
      text('EDMPrecond'),
      text('state'),
      '(',
      text('_parameters'),
      '}',
      text('_buffers'),
      '}',
      text('_modules'),
      '}',
      'q\x01',
      'd',
      'd',
    ];
    const net = ['ctorch_utils.persistence\n_reconstruct_persistent_obj\n', ...state, 0x85, 'R', 'q\x02'];
    const path = join(folder, 'cycle.pkl');
    writeFileSync(path, pickle(...net, 'h\x01', text('m'), 'h\x02', 's', '0', '.'));
    await expect(convertEdm(path, join(folder, 'cycle'))).rejects.toThrow('its modules contain each other');
  });

  it('references to references without copying shared values', async () => {
    // Thirty lists, each contained twice in the next one: 2^30 leaves in 200 bytes.
    const doubled = Array.from(
      { length: 30 },
      (_, k) => `q${String.fromCharCode(k)}h${String.fromCharCode(k)}\x86`,
    );
    expect(await readTorch(pickle(']', ...doubled, '.'), 'bomb.pkl')).toHaveLength(2);
  });

  it.each(['cond.pt', 'uncond.pt', 'cond.pkl'])('%s, truncated at any byte', async (name) => {
    const bytes = readFileSync(golden(name));
    for (let k = 1; k < 40; k++)
      await expect(readTorch(bytes.subarray(0, Math.floor((bytes.length * k) / 40)), name)).rejects.toThrow(
        ModelError,
      );
  });

  it('files with any wrong byte, with a ModelError, or reads data', async () => {
    const bytes = readFileSync(golden('views.pt'));
    for (let k = 0; k < bytes.length; k++) {
      const broken = Buffer.from(bytes);
      broken[k] = broken[k]! ^ (1 << (k % 8));
      try {
        await readTorch(broken, 'views.pt');
      } catch (error) {
        if (!(error instanceof ModelError)) throw new Error(`byte ${k}: ${error}`);
      }
    }
  });

  it.each([
    ['exceeds its storage', [0, [13], [1]], 'exceeds its storage of 12'],
    ['from exceeds its storage', [9, [2, 2], [2, 1]], 'exceeds its storage'],
    ['of a giant size by strides of 0', [0, [2 ** 40], [0]], 'exceeds its storage'],
    ['of negative strides', [3, [3], [-1]], 'not sizes'],
    ['of a shape without strides', [0, [2, 2], [1]], 'not sizes'],
  ] as const)('a tensor %s', async (_, [offset, shape, strides], message) => {
    const int = (n: number) => (n > 2 ** 31 ? `\x8a\x06${'\x00'.repeat(5)}\x01` : `J${u32(n >>> 0)}`);
    const tuple = (values: readonly number[]) => `(${values.map(int).join('')}t`;
    // The old format of torch.save, with one tensor.
    const made = pickle(
      'ctorch._utils\n_rebuild_tensor_v2\n',
      '((',
      text('storage'),
      'ctorch\nFloatStorage\n',
      text('0'),
      text('cpu'),
      int(12),
      'NtQ',
      int(offset),
      tuple(shape),
      tuple(strides),
      0x89,
      '}tR.',
    );
    const magic = Buffer.from('80028a0a6cfc9c46f9206aa850192e', 'hex');
    const rest = [pickle('M\xe9\x03.'), pickle('}.'), made, pickle(']', text('0'), 'a.')];
    const file = Buffer.concat([magic, ...rest, Buffer.from([12, 0, 0, 0, 0, 0, 0, 0]), Buffer.alloc(48)]);
    await expect(readTorch(file, 'x.pt')).rejects.toThrow(message);
  });
});

// Reads EDM's published networks, and state dicts of EDMPrecond from other training code.

import { ModelError } from '../../errors.ts';
import { product } from '../../numbers.ts';
import { checkTensors } from '../files/expected-tensors.ts';
import type { OpenFile } from '../files/files.ts';
import { type Pickled, PickledObject } from '../files/pickle.ts';
import type { TensorInfo } from '../files/safetensors.ts';
import { DTYPE_BITS } from '../files/safetensors-header.ts';
import type { TensorData } from '../files/tensor-data.ts';
import { readTorch, TorchTensor } from '../files/torch-file.ts';
import { edmTensors } from '../networks/edm-unet.ts';
import { parseEdmConfig } from '../networks/read-edm-config.ts';

/** The arguments of EDMPrecond and its network, as they are in `config.json`. */
export type EdmArguments = Readonly<Record<string, unknown>>;

/** A network from a pickle: its `config.json`, and its tensors by EDM's names. */
interface EdmNetwork {
  readonly config: EdmArguments;
  readonly tensors: readonly (readonly [name: string, tensor: TensorData])[];
}

/** The names of EDMPrecond's positional arguments. */
const POSITIONAL = [
  'img_resolution',
  'img_channels',
  'label_dim',
  'use_fp16',
  'sigma_min',
  'sigma_max',
  'sigma_data',
  'model_type',
];

/** Limits on modules and on their nesting, which no network reaches: a broken pickle's modules may contain each other. */
const MOST_MODULES = 100_000;
const DEEPEST = 64;

type Tensors = ReadonlyMap<string, TorchTensor>;

/** Returns a module's tensors by torch's names: its own parameters and buffers, then those of its modules. */
function stateOf(module: PickledObject, refuse: (what: string) => Error): Tensors {
  const found = new Map<string, TorchTensor>();
  let modules = 0;
  const walk = ({ className, state }: PickledObject, prefix: string, depth: number) => {
    if (++modules > MOST_MODULES || depth > DEEPEST) throw refuse('its modules contain each other');
    const part = (key: string) => (state instanceof Map ? state.get(key) : undefined);
    const skipped = part('_non_persistent_buffers_set');
    for (const key of ['_parameters', '_buffers']) {
      const tensors = part(key);
      if (!(tensors instanceof Map)) throw refuse(`${className} is not a module of torch: it has no ${key}`);
      for (const [name, tensor] of tensors) {
        if (tensor === null || (key === '_buffers' && skipped instanceof Set && skipped.has(name))) continue;
        if (!(tensor instanceof TorchTensor)) throw refuse(`"${prefix}${name}" is not a tensor`);
        found.set(`${prefix}${name}`, tensor);
      }
    }
    const inner = part('_modules');
    for (const [name, sub] of inner instanceof Map ? inner : []) {
      if (sub === null) continue;
      if (!(sub instanceof PickledObject)) throw refuse(`"${prefix}${name}" is not a module`);
      walk(sub, `${prefix}${name}.`, depth + 1);
    }
  };
  walk(module, '', 0);
  return found;
}

/** Returns an argument as JSON holds it. */
function plain(value: Pickled, refuse: (what: string) => Error, depth = 0): unknown {
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return value;
  if (typeof value === 'number') return value === Number.POSITIVE_INFINITY ? 'Infinity' : value;
  if (Array.isArray(value) && depth < 4) return value.map((item) => plain(item, refuse, depth + 1));
  throw refuse('expected numbers, texts and lists of these as arguments of EDMPrecond');
}

/** Returns the arguments that an EDM object was constructed with. */
function argumentsOf({ className, state }: PickledObject, refuse: (what: string) => Error): EdmArguments {
  if (className !== 'EDMPrecond')
    throw refuse(
      `expected a network of EDMPrecond, got ${className} (other preconditionings are not supported)`,
    );
  const [args, kwargs] = ['_init_args', '_init_kwargs'].map((key) =>
    state instanceof Map ? state.get(key) : undefined,
  );
  if (!Array.isArray(args) || !(kwargs instanceof Map))
    throw refuse('EDMPrecond does not hold the arguments of its constructor (_init_args, _init_kwargs)');
  if (args.length > POSITIONAL.length)
    throw refuse(`expected at most ${POSITIONAL.length} arguments of EDMPrecond, got ${args.length}`);
  const named = [...args.map((value, k) => [POSITIONAL[k]!, value] as const), ...kwargs];
  return Object.fromEntries(named.map(([key, value]) => [key, plain(value, refuse)]));
}

/** Infers the arguments of EDMPrecond from names and shapes of its tensors. */
export function inferArguments(
  tensors: ReadonlyMap<string, { readonly shape: readonly number[] }>,
): EdmArguments {
  const shape = (name: string) => tensors.get(name)?.shape ?? [];
  const sides = new Map<number, number>();
  for (const name of tensors.keys()) {
    const [, side, block] = /^model\.enc\.(\d+)x\1_block(\d+)\./.exec(name) ?? [];
    if (side) sides.set(Number(side), Math.max(sides.get(Number(side)) ?? 0, Number(block) + 1));
  }
  const resolutions = [...sides.keys()].sort((a, b) => b - a);
  const [side = 0] = resolutions;
  const isSong = tensors.has(`model.dec.${side}x${side}_aux_norm.weight`);
  const [width = 0, imgChannels = 0] = shape(`model.enc.${side}x${side}_conv.weight`);
  const [embedding = 0, sinusoids = 0] = shape('model.map_layer0.weight');
  const channels = isSong ? width : sinusoids;
  const of = (resolution: number, part: string) =>
    `model.enc.${resolution}x${resolution}_block0.${part}.weight`;
  return {
    model_type: isSong ? 'SongUNet' : 'DhariwalUNet',
    img_resolution: side,
    img_channels: imgChannels,
    label_dim: shape('model.map_label.weight')[1] ?? 0,
    augment_dim: shape('model.map_augment.weight')[1] ?? 0,
    model_channels: channels,
    channel_mult: resolutions.map((resolution) => (shape(of(resolution, 'conv0'))[0] ?? 0) / channels),
    channel_mult_emb: embedding / channels,
    ...(isSong ? { channel_mult_noise: sinusoids / channels } : {}),
    num_blocks: sides.get(side) ?? 0,
    attn_resolutions: resolutions.filter((resolution) => tensors.has(of(resolution, 'qkv'))),
  };
}

/** Returns the network of a file: tensors by EDM's names, and its arguments if the file holds them. */
function networkOf(
  value: Pickled,
  refuse: (what: string) => Error,
): { tensors: Tensors; config?: EdmArguments } {
  const network = value instanceof Map && value.has('ema') ? value.get('ema')! : value;
  if (network instanceof PickledObject)
    return { tensors: stateOf(network, refuse), config: argumentsOf(network, refuse) };
  if (!(network instanceof Map) || network.size === 0)
    throw refuse('expected a network under "ema", or a state dict of EDMPrecond');
  const tensors = new Map<string, TorchTensor>();
  for (const [name, tensor] of network) {
    if (typeof name !== 'string' || !(tensor instanceof TorchTensor))
      throw refuse(
        `expected a network under "ema", or a state dict of EDMPrecond, got "${name}" that is not a tensor`,
      );
    tensors.set(name, tensor);
  }
  return { tensors };
}

const FLOATS: ReadonlySet<string> = new Set(['F32', 'F16', 'BF16', 'F64']);

/** Returns a tensor for safetensors; double precision, in which no network is run, becomes single. */
function dataOf(name: string, tensor: TorchTensor, refuse: (what: string) => Error): TensorData {
  const { dtype, shape } = tensor;
  if (!FLOATS.has(dtype)) throw refuse(`"${name}": expected floating-point numbers, got ${dtype}`);
  const count = product(shape);
  const elementBytes = DTYPE_BITS[dtype] / 8;
  const read = async () => {
    const bytes = new Uint8Array(count * elementBytes);
    await tensor.read(0, bytes);
    return bytes;
  };
  if (dtype !== 'F64') return { dtype, shape, data: { byteLength: count * elementBytes, read } };
  const single = async () => new Uint8Array(new Float32Array(new Float64Array((await read()).buffer)).buffer);
  return { dtype: 'F32', shape, data: { byteLength: 4 * count, read: single } };
}

/**
 * Reads a network from EDM's pickle (`edm-cifar10-32x32-cond-vp.pkl`, key `ema`) or of a state dict of
 * EDMPrecond (`.pt`). Nothing of the file is executed; `path` is for messages. The tensors are read from `file` when they are
 * written.
 *
 * A state dict does not contain its network's arguments: the architecture is inferred from names and shapes. `given`
 * arguments override those of the file and the inferred ones.
 *
 * @throws ModelError, one sentence that begins with `path`, if the file holds anything but tensors and EDM's objects, or
 *   if the tensors are not exactly those of the architecture.
 */
export async function readEdmPickle(file: OpenFile, path: string, given?: EdmArguments): Promise<EdmNetwork> {
  const refuse = (what: string): ModelError => new ModelError(`${path}: ${what}`);
  const { tensors, config: own } = networkOf(await readTorch(file, path), refuse);
  const config = { _class_name: 'EDMPrecond', ...(own ?? inferArguments(tensors)), ...given };
  const data = [...tensors].map(([name, tensor]) => [name, dataOf(name, tensor, refuse)] as const);
  checkArchitecture(path, config, data, own !== undefined || given !== undefined);
  return { config, tensors: data };
}

/** State dicts that need no conversion, by names of tensors. */
const OTHER_NETWORKS: readonly (readonly [name: RegExp, what: string])[] = [
  [
    /^(?:down_blocks|conv_in|time_embedding|encoder\.down_blocks|transformer_blocks)\./,
    'these are the weights of a network of diffusers, which need no conversion: give --model the folder with model_index.json',
  ],
  [
    /^model\.diffusion_model\./,
    'this is a checkpoint of Stable Diffusion, which needs no conversion: give it to --model as it is',
  ],
];

/**
 * Throws unless the tensors are those of the architecture. EDM's resampling filters are not among its weights. `isGiven`
 * is whether the arguments come from the file or the caller, rather than from `inferArguments`.
 */
function checkArchitecture(
  path: string,
  config: EdmArguments,
  data: readonly (readonly [string, TensorData])[],
  isGiven: boolean,
): void {
  const named = data.filter(([name]) => !name.endsWith('.resample_filter'));
  const infos = new Map(
    named.map(([name, { dtype, shape }]): [string, TensorInfo] => [
      name,
      { name, dtype, shape, file: path, begin: 0, bytes: 0 },
    ]),
  );
  try {
    checkTensors(edmTensors(parseEdmConfig(config, path)), { path, tensors: infos });
  } catch (error) {
    const other = OTHER_NETWORKS.find(([pattern]) => named.some(([name]) => pattern.test(name)));
    if (other) throw new ModelError(`${path}: ${other[1]}`);
    if (isGiven || !(error instanceof ModelError)) throw error;
    throw new ModelError(
      `${path}: the architecture cannot be inferred from names and shapes; give --config FILE with EDMPrecond's arguments (${error.message})`,
    );
  }
}

// Reads files of torch.save and of EDM's training as plain data: tensors, dictionaries, and objects that consist of their
// state only. Nothing of a file is executed; see `pickle.ts`.

import { ModelError } from '../../errors.ts';
import { product } from '../../numbers.ts';
import { type Pickled, PickledGlobal, PickledObject, readPickle } from './pickle.ts';
import { isZip, zipEntries } from './stored-zip.ts';

/** Torch's storages by name: the dtype and the bytes per element. */
const STORAGES: ReadonlyMap<string, readonly [dtype: string, bytes: number]> = new Map([
  ['torch.FloatStorage', ['F32', 4]],
  ['torch.HalfStorage', ['F16', 2]],
  ['torch.BFloat16Storage', ['BF16', 2]],
  ['torch.DoubleStorage', ['F64', 8]],
  ['torch.LongStorage', ['I64', 8]],
  ['torch.IntStorage', ['I32', 4]],
  ['torch.ShortStorage', ['I16', 2]],
  ['torch.CharStorage', ['I8', 1]],
  ['torch.ByteStorage', ['U8', 1]],
  ['torch.BoolStorage', ['BOOL', 1]],
]);

/** Little-endian numbers that several tensors may share. */
class TorchStorage {
  readonly made = 'storage';
  bytes: Uint8Array | undefined;
  constructor(
    readonly dtype: string,
    readonly elementBytes: number,
    readonly length: number,
  ) {}
}

/** A tensor as torch stores it: a view of a storage. Offset and strides are in elements. */
export class TorchTensor {
  readonly made = 'tensor';
  constructor(
    readonly storage: TorchStorage,
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {}

  /** Returns the elements in row-major order: a part of the file if they are stored so, else a copy. */
  contiguous(): Uint8Array {
    const { storage, offset, shape, strides } = this;
    const { elementBytes: size } = storage;
    const bytes = storage.bytes!;
    const count = product(shape);
    let dense = 1;
    let isDense = true;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      if (shape[axis] !== 1 && strides[axis] !== dense) isDense = false;
      dense *= shape[axis]!;
    }
    if (isDense) return bytes.subarray(offset * size, (offset + count) * size);
    const out = new Uint8Array(count * size);
    const index = shape.map(() => 0);
    let from = offset;
    for (let k = 0; k < count; k++) {
      for (let byte = 0; byte < size; byte++) out[k * size + byte] = bytes[from * size + byte]!;
      for (let axis = shape.length - 1; axis >= 0; axis--) {
        from += strides[axis]!;
        if (++index[axis]! < shape[axis]!) break;
        from -= strides[axis]! * shape[axis]!;
        index[axis] = 0;
      }
    }
    return out;
  }
}

/** Functions and classes whose results are data; every other call is refused. */
const CALLS = [
  'collections.OrderedDict',
  'dnnlib.util.EasyDict',
  'torch._utils._rebuild_tensor_v2',
  'torch._utils._rebuild_parameter',
  'torch.storage._load_from_bytes',
  'torch.Size',
  'torch_utils.persistence._reconstruct_persistent_obj',
  'copyreg._reconstructor',
  'copy_reg._reconstructor',
  'builtins.set',
  '__builtin__.set',
  '_codecs.encode',
] as const;
type Call = (typeof CALLS)[number];

const MENTIONED: ReadonlySet<string> = new Set(['builtins.object', '__builtin__.object', ...STORAGES.keys()]);

/** Classes whose instances EDM's pickles hold; of an instance only its saved state is read. */
const CLASSES = /^(training(\.\w+)*|torch\.nn(\.\w+)*|_imported_module_[0-9a-f]+)\.[A-Za-z_]\w*$/;

const isCall = (name: string): name is Call => CALLS.some((known) => known === name);

const MAGIC = 0x1950a86a20f9469cfc6cn;
const MOST_AXES = 16;
/** A pickle may hold storages as bytes of torch.save, and those hold no further ones. */
const DEEPEST = 2;

const isSize = (value: Pickled | undefined): value is number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;

function tensorOf([storage, offset, shape, strides]: readonly Pickled[], refuse: (what: string) => Error) {
  if (
    !(storage instanceof TorchStorage) ||
    !isSize(offset) ||
    !Array.isArray(shape) ||
    !Array.isArray(strides)
  )
    throw refuse('a tensor has no storage, shape or strides');
  if (shape.length !== strides.length || shape.length > MOST_AXES || ![...shape, ...strides].every(isSize))
    throw refuse('the shape or strides of a tensor are not sizes');
  const [sides, steps] = [shape as number[], strides as number[]];
  const count = product(sides);
  const last = offset + sides.reduce((sum, side, axis) => sum + (side - 1) * steps[axis]!, 0);
  if (count > storage.length || (count > 0 && !(last < storage.length)))
    throw refuse(`a tensor [${sides.join(', ')}] exceeds its storage of ${storage.length} elements`);
  return new TorchTensor(storage, offset, sides, steps);
}

function latin1Bytes(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
  return bytes;
}

/** Runs a pickle whose persistent ids are storages. `storage` returns that of a key: the new one, or an earlier one. */
function readTorchPickle(
  bytes: Uint8Array,
  file: string,
  start: number,
  depth: number,
  storage: (storage: TorchStorage, key: string) => TorchStorage,
) {
  const refuse = (what: string): ModelError => new ModelError(`${file}: ${what}`);
  const call = (name: Call, args: readonly Pickled[]): Pickled => {
    const [first] = args;
    switch (name) {
      case 'collections.OrderedDict':
      case 'dnnlib.util.EasyDict': {
        const pairs = args.length === 0 ? [] : first;
        const entries = pairs instanceof Map ? [...pairs] : pairs;
        if (!Array.isArray(entries)) throw refuse(`${name}: expected a list of pairs`);
        const dictionary = new Map<string | number, Pickled>();
        for (const pair of entries) {
          const [key, value] = Array.isArray(pair) ? pair : [];
          if ((typeof key !== 'string' && typeof key !== 'number') || value === undefined)
            throw refuse(`${name}: expected a list of pairs`);
          dictionary.set(key, value);
        }
        return dictionary;
      }
      case 'torch._utils._rebuild_tensor_v2':
        return tensorOf(args, refuse);
      case 'torch._utils._rebuild_parameter':
        if (!(first instanceof TorchTensor)) throw refuse('expected a tensor as a parameter');
        return first;
      case 'torch.storage._load_from_bytes':
        if (!(first instanceof Uint8Array)) throw refuse('expected bytes as a storage');
        return readTorch(first, file, depth + 1);
      case 'torch.Size':
        return first ?? [];
      case 'torch_utils.persistence._reconstruct_persistent_obj': {
        const name = first instanceof Map ? first.get('class_name') : undefined;
        const state = first instanceof Map ? first.get('state') : undefined;
        if (typeof name !== 'string' || state === undefined)
          throw refuse('a persistent object has no class_name or state');
        const object = new PickledObject(name);
        object.state = state;
        return object;
      }
      case 'copyreg._reconstructor':
      case 'copy_reg._reconstructor':
        if (!(first instanceof PickledGlobal) || !CLASSES.test(first.name) || args[2] !== null)
          throw refuse(`${name}: expected an object`);
        return new PickledObject(first.name);
      case 'builtins.set':
      case '__builtin__.set':
        return new Set(Array.isArray(first) ? first : []);
      case '_codecs.encode':
        if (typeof first !== 'string' || args[1] !== 'latin1')
          throw refuse('_codecs.encode: expected bytes as latin1');
        return latin1Bytes(first);
      default:
        return name satisfies never;
    }
  };
  return readPickle(
    bytes,
    {
      allows: (name) => isCall(name) || MENTIONED.has(name) || CLASSES.test(name),
      call({ name }, args, isNew) {
        if (isCall(name)) return call(name, args);
        if (isNew && args.length === 0 && CLASSES.test(name)) return new PickledObject(name);
        throw refuse(`the pickle calls ${name}, which is not supported`);
      },
      persistent(id) {
        const [tag, type, key, , length, view = null] = Array.isArray(id) ? id : [];
        const kind = type instanceof PickledGlobal ? STORAGES.get(type.name) : undefined;
        if (tag !== 'storage' || !kind || typeof key !== 'string' || !isSize(length) || view !== null)
          throw refuse('a persistent id is not a storage');
        return storage(new TorchStorage(...kind, length), key);
      },
    },
    file,
    start,
  );
}

const tooShort = (file: string) =>
  new ModelError(`${file}: the file is cut short: a storage's bytes are missing`);

/** Reads a zip archive, whose entries are the storages: torch.save since 1.6. */
function readZip(bytes: Uint8Array, file: string, depth: number): Pickled {
  const entries = zipEntries(bytes, file);
  const pickles = [...entries.keys()].filter((name) => name.endsWith('/data.pkl') || name === 'data.pkl');
  if (pickles.length !== 1)
    throw new ModelError(`${file}: expected one data.pkl in an archive of torch.save, got ${pickles.length}`);
  const under = pickles[0]!.slice(0, -'data.pkl'.length);
  const order = entries.get(`${under}byteorder`);
  if (order && new TextDecoder().decode(order) !== 'little')
    throw new ModelError(`${file}: its numbers are big-endian, which is not supported`);
  const storages = new Map<string, TorchStorage>();
  return readTorchPickle(entries.get(pickles[0]!)!, file, 0, depth, (storage, key) => {
    const known = storages.get(key);
    if (known) return sameStorage(known, storage, file);
    storage.bytes = entries.get(`${under}data/${key}`);
    if (!storage.bytes || storage.bytes.length < storage.length * storage.elementBytes) throw tooShort(file);
    storages.set(key, storage);
    return storage;
  }).value;
}

/** Returns a storage that is mentioned again. @throws ModelError if it has another dtype or length now. */
function sameStorage(known: TorchStorage, again: TorchStorage, file: string): TorchStorage {
  if (known.dtype !== again.dtype || known.length !== again.length)
    throw new ModelError(`${file}: a storage has two dtypes or lengths`);
  return known;
}

/** Reads a file with the storages after the pickle: torch.save before 1.6, and storages inside plain pickles. */
function readLegacy(bytes: Uint8Array, file: string, depth: number): Pickled {
  const refuse = (what: string): ModelError => new ModelError(`${file}: ${what}`);
  const none = () => {
    throw refuse('expected no storage in the header');
  };
  const header: Pickled[] = [];
  let at = 0;
  for (let k = 0; k < 3; k++) {
    const { value, end } = readTorchPickle(bytes, file, at, depth, none);
    header.push(value);
    at = end;
    if (k === 0 && value !== MAGIC)
      throw refuse('the bytes of a storage do not begin as those of torch.save');
  }
  if (header[1] !== 1001) throw refuse(`torch.save's version ${header[1]} is not supported`);
  const system = header[2];
  if (system instanceof Map && system.get('little_endian') === false)
    throw refuse('its numbers are big-endian, which is not supported');
  const storages = new Map<string, TorchStorage>();
  const { value, end } = readTorchPickle(bytes, file, at, depth, (storage, key) => {
    const known = storages.get(key);
    if (known) return sameStorage(known, storage, file);
    storages.set(key, storage);
    return storage;
  });
  const keys = readTorchPickle(bytes, file, end, depth, none);
  at = keys.end;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (const key of Array.isArray(keys.value) ? keys.value : []) {
    const storage = typeof key === 'string' ? storages.get(key) : undefined;
    if (!storage) throw refuse('expected only storages that tensors use');
    if (at + 8 > bytes.length) throw tooShort(file);
    if (view.getBigInt64(at, true) !== BigInt(storage.length)) throw refuse('a storage has two lengths');
    const length = storage.length * storage.elementBytes;
    if (at + 8 + length > bytes.length) throw tooShort(file);
    storage.bytes = bytes.subarray(at + 8, at + 8 + length);
    at += 8 + length;
  }
  if ([...storages.values()].some((storage) => !storage.bytes)) throw tooShort(file);
  return value;
}

/** The first bytes of torch.save's old form: its magic number as a pickle of protocol 2. */
const LEGACY = Uint8Array.from([
  0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19,
]);

/**
 * Reads a file of torch.save (either form), or a pickle that holds tensors, such as EDM's snapshots of networks.
 *
 * @throws ModelError, one sentence that begins with `file`, if the file is broken or cut short, or holds anything but
 * tensors, dictionaries, lists and the objects of EDM.
 */
export function readTorch(bytes: Uint8Array, file: string, depth = 0): Pickled {
  if (depth > DEEPEST) throw new ModelError(`${file}: storages are nested more than ${DEEPEST} deep`);
  if (isZip(bytes)) return readZip(bytes, file, depth);
  if (LEGACY.every((byte, k) => bytes[k] === byte)) return readLegacy(bytes, file, depth);
  return readTorchPickle(bytes, file, 0, depth, () => {
    throw new ModelError(`${file}: a plain pickle may not have persistent ids`);
  }).value;
}

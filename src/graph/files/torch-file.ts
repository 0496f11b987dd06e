// Reads files of torch.save and of EDM's training as plain data: tensors, dictionaries, and objects that consist of their
// state only. Nothing of a file is executed; see `pickle.ts`. The numbers of tensors are not read: a tensor knows where they
// are in the file.

import { ModelError } from '../../errors.ts';
import { product } from '../../numbers.ts';
import type { OpenFile } from './files.ts';
import { type Pickled, PickledGlobal, PickledObject, readPickle } from './pickle.ts';
import { PickleCutShort } from './pickle-bytes.ts';
import type { SafetensorsDtype } from './safetensors-header.ts';
import { entryBegin, isZip, readEntry, zipEntries } from './stored-zip.ts';
import { openBytes } from './virtual-files.ts';
import { TELLING_BYTES, wrongContent } from './wrong-content.ts';

/** Torch's storages by name: the dtype and the bytes per element. */
const STORAGES: ReadonlyMap<string, readonly [dtype: SafetensorsDtype, bytes: number]> = new Map([
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

/** Little-endian numbers that several tensors may share: a range of a file. */
class TorchStorage {
  readonly made = 'storage';
  /** Where the numbers are; set once it is known. */
  place: { readonly file: OpenFile; readonly begin: number } | undefined;
  constructor(
    readonly dtype: SafetensorsDtype,
    readonly elementBytes: number,
    readonly length: number,
    readonly path: string,
  ) {}

  get bytes(): number {
    return this.length * this.elementBytes;
  }

  async read(from: number, into: Uint8Array): Promise<void> {
    const { file, begin } = this.place!;
    if ((await file.read(begin + from, into)) < into.length) throw tooShort(this.path);
  }
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

  get dtype(): SafetensorsDtype {
    return this.storage.dtype;
  }

  /** Whether the elements follow each other in row-major order in the storage. */
  private get isDense(): boolean {
    let dense = 1;
    for (let axis = this.shape.length - 1; axis >= 0; axis--) {
      if (this.shape[axis] !== 1 && this.strides[axis] !== dense) return false;
      dense *= this.shape[axis]!;
    }
    return true;
  }

  /** Returns the position in the storage of an element that is given by its position in row-major order. */
  private positionOf(element: number): number {
    let [position, rest] = [this.offset, element];
    for (let axis = this.shape.length - 1; axis >= 0; axis--) {
      const side = this.shape[axis]!;
      position += (rest % side) * this.strides[axis]!;
      rest = Math.floor(rest / side);
    }
    return position;
  }

  /**
   * Fills `into` with bytes of the elements in row-major order, from byte `from` of them on, whatever the strides are.
   * @throws ModelError if the file has become shorter.
   */
  async read(from: number, into: Uint8Array): Promise<void> {
    const { storage, offset } = this;
    const { elementBytes: size } = storage;
    if (this.isDense) return storage.read(offset * size + from, into);
    if (into.length === 0) return;
    const [first, last] = [Math.floor(from / size), Math.floor((from + into.length - 1) / size)];
    const positions = Array.from({ length: last - first + 1 }, (_, k) => this.positionOf(first + k));
    const [least, most] = positions.reduce(
      ([low, high], at) => [Math.min(low, at), Math.max(high, at)],
      [positions[0]!, positions[0]!],
    );
    const span = new Uint8Array((most - least + 1) * size);
    await storage.read(least * size, span);
    for (let k = 0; k < into.length; k++) {
      const byte = from + k;
      const at = positions[Math.floor(byte / size) - first]! - least;
      into[k] = span[at * size + (byte % size)]!;
    }
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

/**
 * Python's modules with functions that run code or reach files. Only an attack names them in a checkpoint, so that they are
 * refused also where other unknown names are ignored.
 */
const DANGEROUS =
  /^(?:os|nt|posix|subprocess|pty|commands|sys|shutil|socket|runpy|importlib|imp|code|codeop|ctypes|pickle|_pickle|cPickle|marshal|webbrowser|multiprocessing|asyncio|http|urllib2?|requests|pip|bdb|pdb|cProfile|profile|timeit|doctest|venv|torch\.hub|torch\.load)(?:\.|$)/;

/** Python's built-in classes that hold data; every other built-in name is refused like a dangerous one. */
const BUILT_IN =
  /^(builtins|__builtin__)\.(object|set|frozenset|list|dict|tuple|int|long|float|complex|bool|str|unicode|bytes|bytearray|slice|range|xrange)$/;

const isDangerous = (name: string): boolean =>
  DANGEROUS.test(name) || (/^(builtins|__builtin__)\./.test(name) && !BUILT_IN.test(name));

/** What happens to names of classes and functions that this reader does not know. */
interface Unknown {
  /** `refuse` is an error; `ignore` makes an object of each call's result, of which nobody reads anything. */
  readonly unknown?: 'refuse' | 'ignore';
}

const isCall = (name: string): name is Call => CALLS.some((known) => known === name);

const MAGIC = 0x1950a86a20f9469cfc6cn;
const MOST_AXES = 16;
/** A pickle may hold storages as bytes of torch.save, and those hold no further ones. */
const DEEPEST = 2;
/** Bytes of the length that stands before each storage in torch.save's old form. */
const LENGTH_BYTES = 8;
/** The largest pickle that may follow bytes of a file of torch.save; EDM's pickles hold their storages. */
const MOST_PICKLE_BYTES = 2 ** 31 - 1;
/** How much of a file is read at first for its pickle; eight times as much at each further try. */
const FIRST_BYTES = 2 ** 20;

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

interface Reading extends Unknown {
  /** The file in messages. */
  readonly path: string;
  readonly depth: number;
}

/** Runs a pickle whose persistent ids are storages. `storage` returns that of a key: the new one, or an earlier one. */
function readTorchPickle(
  bytes: Uint8Array,
  start: number,
  { path, depth, unknown = 'refuse' }: Reading,
  storage: (storage: TorchStorage, key: string) => TorchStorage,
) {
  const refuse = (what: string): ModelError => new ModelError(`${path}: ${what}`);
  const ignored = (name: string): PickledObject => {
    if (unknown === 'refuse') throw refuse(`the pickle calls ${name}, which is not supported`);
    return new PickledObject(name);
  };
  // Calls may copy a value that the pickle mentions many times; honest ones copy each value once.
  let copied = 0;
  const copy = <T extends { readonly length: number }>(value: T): T => {
    copied += value.length;
    if (copied > bytes.length) throw refuse('the pickle copies more values than it has bytes');
    return value;
  };
  const call = (name: Call, args: readonly Pickled[]): Pickled => {
    const [first] = args;
    switch (name) {
      case 'collections.OrderedDict':
      case 'dnnlib.util.EasyDict': {
        const pairs = args.length === 0 ? [] : first;
        const entries = pairs instanceof Map ? [...pairs] : pairs;
        if (!Array.isArray(entries)) throw refuse(`${name}: expected a list of pairs`);
        const dictionary = new Map<string | number, Pickled>();
        for (const pair of copy(entries)) {
          const [key, value] = Array.isArray(pair) ? pair : [];
          if ((typeof key !== 'string' && typeof key !== 'number') || value === undefined)
            throw refuse(`${name}: expected a list of pairs`);
          dictionary.set(key, value);
        }
        return dictionary;
      }
      case 'torch._utils._rebuild_tensor_v2':
        return first instanceof PickledObject ? ignored(name) : tensorOf(args, refuse);
      case 'torch._utils._rebuild_parameter':
        if (first instanceof PickledObject) return ignored(name);
        if (!(first instanceof TorchTensor)) throw refuse('expected a tensor as a parameter');
        return first;
      case 'torch.storage._load_from_bytes':
        if (!(first instanceof Uint8Array)) throw refuse('expected bytes as a storage');
        return nestedStorage(copy(first), { path, depth: depth + 1, unknown });
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
        if (first instanceof PickledGlobal && CLASSES.test(first.name) && args[2] === null)
          return new PickledObject(first.name);
        if (unknown === 'refuse') throw refuse(`${name}: expected an object`);
        return ignored(name);
      case 'builtins.set':
      case '__builtin__.set':
        return new Set(Array.isArray(first) ? copy(first) : []);
      case '_codecs.encode':
        if (typeof first !== 'string' || args[1] !== 'latin1')
          throw refuse('_codecs.encode: expected bytes as latin1');
        return latin1Bytes(copy(first));
      default:
        return name satisfies never;
    }
  };
  return readPickle(
    bytes,
    {
      lenient: unknown === 'ignore',
      allows(name) {
        if (isCall(name) || MENTIONED.has(name) || CLASSES.test(name)) return true;
        return unknown === 'ignore' && !isDangerous(name);
      },
      call({ name }, args, isNew) {
        if (isCall(name)) return call(name, args);
        if (isNew && args.length === 0 && CLASSES.test(name)) return new PickledObject(name);
        return ignored(name);
      },
      persistent(id) {
        const [tag, type, key, , length, view = null] = Array.isArray(id) ? id : [];
        const typeName = type instanceof PickledGlobal ? type.name : '';
        const kind = STORAGES.get(typeName);
        if (tag === 'storage' && !kind && typeName !== '' && unknown === 'ignore') return ignored(typeName);
        if (tag !== 'storage' || !kind || typeof key !== 'string' || !isSize(length) || view !== null)
          throw refuse('a persistent id is not a storage');
        return storage(new TorchStorage(...kind, length, path), key);
      },
    },
    path,
    start,
  );
}

const tooShort = (path: string) =>
  new ModelError(`${path}: the file is cut short: a storage's bytes are missing`);

/** Returns a storage that is mentioned again. @throws ModelError if it has another dtype or length now. */
function sameStorage(known: TorchStorage, again: TorchStorage): TorchStorage {
  if (known.dtype !== again.dtype || known.length !== again.length)
    throw new ModelError(`${known.path}: a storage has two dtypes or lengths`);
  return known;
}

/** Returns a function for `readTorchPickle` that collects the storages by their keys. */
const collecting =
  (storages: Map<string, TorchStorage>) =>
  (storage: TorchStorage, key: string): TorchStorage => {
    const known = storages.get(key);
    if (known) return sameStorage(known, storage);
    storages.set(key, storage);
    return storage;
  };

/** Reads a zip archive, whose entries are the storages: torch.save since 1.6. */
async function readZip(file: OpenFile, reading: Reading): Promise<Pickled> {
  const { path } = reading;
  const entries = await zipEntries(file, path);
  const pickles = [...entries.keys()].filter((name) => name.endsWith('/data.pkl') || name === 'data.pkl');
  if (pickles.length !== 1)
    throw new ModelError(`${path}: expected one data.pkl in an archive of torch.save, got ${pickles.length}`);
  const under = pickles[0]!.slice(0, -'data.pkl'.length);
  const order = entries.get(`${under}byteorder`);
  if (order && order.size > 16) throw new ModelError(`${path}: the archive has a broken byteorder`);
  if (order && new TextDecoder().decode(await readEntry(file, path, order)) !== 'little')
    throw new ModelError(`${path}: its numbers are big-endian, which is not supported`);
  const pickle = entries.get(pickles[0]!)!;
  if (pickle.size > MOST_PICKLE_BYTES)
    throw new ModelError(`${path}: expected a data.pkl of at most ${MOST_PICKLE_BYTES} bytes`);
  const storages = new Map<string, TorchStorage>();
  const { value } = readTorchPickle(await readEntry(file, path, pickle), 0, reading, collecting(storages));
  for (const [key, storage] of storages) {
    const entry = entries.get(`${under}data/${key}`);
    if (!entry || entry.size < storage.bytes) throw tooShort(path);
    storage.place = { file, begin: await entryBegin(file, path, entry) };
  }
  checkDisjoint([...storages.values()], path);
  return value;
}

/** @throws ModelError if two storages have bytes in common, which torch never writes. */
function checkDisjoint(storages: readonly TorchStorage[], path: string): void {
  const ordered = storages.filter(({ bytes }) => bytes > 0).sort((a, b) => a.place!.begin - b.place!.begin);
  let end = 0;
  for (const { place, bytes } of ordered) {
    if (place!.begin < end) throw new ModelError(`${path}: two storages overlap`);
    end = place!.begin + bytes;
  }
}

/** What stands before the storages of a file of torch.save before 1.6. */
interface LegacyHead {
  readonly value: Pickled;
  /** In the order of the file, each after eight bytes with its length. */
  readonly storages: readonly TorchStorage[];
  /** The first byte after the pickles. */
  readonly end: number;
}

function readLegacyHead(bytes: Uint8Array, reading: Reading): LegacyHead {
  const refuse = (what: string): ModelError => new ModelError(`${reading.path}: ${what}`);
  const none = () => {
    throw refuse('expected no storage in the header');
  };
  const header: Pickled[] = [];
  let at = 0;
  for (let k = 0; k < 3; k++) {
    const { value, end } = readTorchPickle(bytes, at, reading, none);
    header.push(value);
    at = end;
    if (k === 0 && value !== MAGIC)
      throw refuse('the bytes of a storage do not begin as those of torch.save');
  }
  if (header[1] !== 1001) throw refuse(`torch.save's version ${header[1]} is not supported`);
  const system = header[2];
  if (system instanceof Map && system.get('little_endian') === false)
    throw refuse('its numbers are big-endian, which is not supported');
  const found = new Map<string, TorchStorage>();
  const { value, end } = readTorchPickle(bytes, at, reading, collecting(found));
  const keys = readTorchPickle(bytes, end, reading, none);
  const storages = (Array.isArray(keys.value) ? keys.value : []).map((key) => {
    const storage = typeof key === 'string' ? found.get(key) : undefined;
    if (!storage) throw refuse('expected only storages that tensors use');
    return storage;
  });
  if (new Set(storages).size < storages.length) throw refuse('a storage is in the file twice');
  if (storages.length < found.size) throw tooShort(reading.path);
  return { value, storages, end: keys.end };
}

/** Places the storages in the file, one after the other. */
function placeStorages({ storages, end }: LegacyHead, file: OpenFile, path: string): void {
  let at = end;
  for (const storage of storages) {
    if (at + LENGTH_BYTES + storage.bytes > file.size) throw tooShort(path);
    storage.place = { file, begin: at + LENGTH_BYTES };
    at += LENGTH_BYTES + storage.bytes;
  }
}

/** Checks the length that stands before a storage. */
function checkLength({ path, length }: TorchStorage, stated: Uint8Array): void {
  if (new DataView(stated.buffer, stated.byteOffset).getBigInt64(0, true) !== BigInt(length))
    throw new ModelError(`${path}: a storage has two lengths`);
}

/** The first bytes of torch.save's old form: its magic number as a pickle of protocol 2. */
const LEGACY = Uint8Array.from([
  0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19,
]);

const isLegacy = (bytes: Uint8Array): boolean => LEGACY.every((byte, k) => bytes[k] === byte);

/** Reads a pickle that is not of torch.save. */
function readPlain(bytes: Uint8Array, reading: Reading): Pickled {
  return readTorchPickle(bytes, 0, reading, () => {
    throw new ModelError(`${reading.path}: a plain pickle may not have persistent ids`);
  }).value;
}

/** Reads a storage that a pickle holds as the bytes of a file of torch.save's old form. */
function nestedStorage(bytes: Uint8Array, reading: Reading): Pickled {
  const { path, depth } = reading;
  if (depth > DEEPEST) throw new ModelError(`${path}: storages are nested more than ${DEEPEST} deep`);
  if (!isLegacy(bytes)) return readPlain(bytes, reading);
  const head = readLegacyHead(bytes, reading);
  placeStorages(head, openBytes(bytes), path);
  for (const storage of head.storages)
    checkLength(storage, bytes.subarray(storage.place!.begin - LENGTH_BYTES, storage.place!.begin));
  return head.value;
}

/** Reads as much of a file as the pickles at its beginning need. */
async function readHead<T>(file: OpenFile, parse: (bytes: Uint8Array) => T): Promise<T> {
  const most = Math.min(file.size, MOST_PICKLE_BYTES);
  for (let length = FIRST_BYTES; ; length *= 8) {
    const bytes = new Uint8Array(Math.min(length, most));
    const read = await file.read(0, bytes);
    try {
      return parse(bytes.subarray(0, read));
    } catch (error) {
      if (!(error instanceof PickleCutShort) || bytes.length === most) throw error;
    }
  }
}

/**
 * Reads a file of torch.save (either form), or a pickle that holds tensors, such as EDM's snapshots of networks. Tensors
 * are read from `file` when they are needed, so that it must stay open until then.
 *
 * `unknown` says what happens to classes and functions of other packages, which training checkpoints hold next to their
 * tensors: `ignore` makes objects of them of which nothing is read. Names with which attacks run code are always refused.
 *
 * @throws ModelError, one sentence that begins with `path`, if the file is broken or cut short, or holds something that is
 * refused.
 */
export async function readTorch(
  file: OpenFile,
  path: string,
  { unknown = 'refuse' }: Unknown = {},
): Promise<Pickled> {
  const reading: Reading = { path, depth: 0, unknown };
  const start = new Uint8Array(Math.min(TELLING_BYTES, file.size));
  await file.read(0, start);
  const wrong = wrongContent(start);
  if (wrong) throw new ModelError(`${path}: ${wrong}`);
  if (isZip(start)) return readZip(file, reading);
  if (!isLegacy(start)) return readHead(file, (bytes) => readPlain(bytes, reading));
  const head = await readHead(file, (bytes) => readLegacyHead(bytes, reading));
  placeStorages(head, file, path);
  for (const storage of head.storages) {
    const stated = new Uint8Array(LENGTH_BYTES);
    if ((await file.read(storage.place!.begin - LENGTH_BYTES, stated)) < LENGTH_BYTES) throw tooShort(path);
    checkLength(storage, stated);
  }
  return head.value;
}

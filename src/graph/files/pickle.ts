// Reads Python pickles of the protocols 0 to 4 as plain data. A pickle is a program for a small stack machine that may call
// anything by its name. This reader runs that machine but calls nothing itself: it asks its caller, who knows a few names
// and refuses the rest. See https://github.com/python/cpython/blob/main/Lib/pickletools.py.

import { pickleBytes, printable } from './pickle-bytes.ts';

/** The name of something in a Python module, which is never looked up. */
export class PickledGlobal {
  constructor(readonly name: string) {}
}

/** An instance as plain data: the name of its class, and its state as soon as it is read. */
export class PickledObject {
  state: Pickled = null;
  constructor(readonly className: string) {}
}

/** A value that the caller returned for a call or for a persistent id. */
interface Made {
  readonly made: unknown;
}

/** What a pickle may hold. Lists and tuples are arrays, dictionaries maps. */
export type Pickled =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | PickledGlobal
  | PickledObject
  | Made
  | Set<Pickled>
  | PickledMap
  | Pickled[];

/** A dictionary; its keys are text or numbers. */
interface PickledMap extends Map<string | number, Pickled> {}

/** What the caller knows about names. `call` and `persistent` throw for everything that they do not know. */
interface PickleNames {
  /** Returns the result of a call: of REDUCE, or of NEWOBJ, which creates an instance. */
  readonly call: (callable: PickledGlobal, args: readonly Pickled[], isNew: boolean) => Pickled;
  /** Returns the value of a persistent id. */
  readonly persistent: (id: Pickled) => Pickled;
  /** Returns whether the pickle may mention a name. */
  readonly allows: (name: string) => boolean;
  /**
   * Whether what is done to objects beyond giving them a state is ignored, as are entries of dictionaries whose keys are
   * neither text nor numbers. Otherwise it is an error.
   */
  readonly lenient?: boolean;
}

/**
 * The most operations of a pickle. Stable Diffusion's training checkpoints have about a million; more values than that would
 * fill the memory.
 */
const MOST_OPERATIONS = 5_000_000;

/**
 * Runs the pickle at `start` of `bytes`. Returns its value and `end`, the first byte after it.
 * @throws PickleCutShort if the pickle goes on after the last byte; ModelError, one sentence that begins with `file`, for a name that is not allowed, an operation outside protocols
 * 0 to 4, and a pickle that is cut short or malformed.
 */
export function readPickle(
  bytes: Uint8Array,
  names: PickleNames,
  file: string,
  start = 0,
): { readonly value: Pickled; readonly end: number } {
  const read = pickleBytes(bytes, file, start);
  const { refuse, raw, u8, u32, u64, number, line, utf8 } = read;
  const { lenient = false } = names;
  let stack: Pickled[] = [];
  const marked: Pickled[][] = [];
  const memo = new Map<number, Pickled>();

  const push = (value: Pickled) => void stack.push(value);
  const pop = (): Pickled => {
    if (stack.length === 0) throw refuse('the stack is empty');
    return stack.pop()!;
  };
  const top = (): Pickled => {
    if (stack.length === 0) throw refuse('the stack is empty');
    return stack[stack.length - 1]!;
  };
  const toMark = (): Pickled[] => {
    const items = stack;
    const below = marked.pop();
    if (!below) throw refuse('there is no mark');
    stack = below;
    return items;
  };
  const list = (value: Pickled): Pickled[] => {
    if (!Array.isArray(value)) throw refuse('expected a list');
    return value;
  };
  const ignores = (target: Pickled): boolean => lenient && target instanceof PickledObject;
  const append = (target: Pickled, items: readonly Pickled[]) => {
    if (ignores(target)) return;
    const values = list(target);
    for (const item of items) values.push(item);
  };
  const fill = (target: Pickled, items: readonly Pickled[]) => {
    if (ignores(target)) return;
    if (!(target instanceof Map) || items.length % 2 !== 0) throw refuse('expected a dictionary');
    for (let k = 0; k < items.length; k += 2) {
      const key = items[k]!;
      if (typeof key === 'string' || typeof key === 'number') target.set(key, items[k + 1]!);
      else if (!lenient) throw refuse('expected text or a number as the key of a dictionary');
    }
  };
  const add = (target: Pickled, items: readonly Pickled[]) => {
    if (ignores(target)) return;
    if (!(target instanceof Set)) throw refuse('expected a set');
    for (const item of items) target.add(item);
  };
  const global = (name: string): PickledGlobal => {
    if (!names.allows(name)) throw refuse(`the pickle names ${printable(name, 200)}, which is not supported`);
    return new PickledGlobal(name);
  };
  const call = (callable: Pickled, args: Pickled, isNew = false): Pickled => {
    if (ignores(callable)) return new PickledObject('a result');
    if (!(callable instanceof PickledGlobal)) throw refuse('it calls something that is not a name');
    return names.call(callable, list(args), isNew);
  };
  const remember = (index: number) => void memo.set(index, top());
  const recall = (index: number) => {
    const value = memo.get(index);
    if (value === undefined) throw refuse(`nothing was remembered as ${index}`);
    push(value);
  };

  for (let operations = 0; ; operations++) {
    if (operations > MOST_OPERATIONS)
      throw refuse(`expected a pickle of at most ${MOST_OPERATIONS} operations`);
    const op = u8();
    switch (op) {
      case 0x80: // PROTO
        if (u8() > 4) throw refuse('expected a protocol up to 4');
        break;
      case 0x95: // FRAME
        if (u64() > read.left()) throw read.cutShort();
        break;
      case 0x2e: {
        // STOP
        const value = pop();
        if (stack.length > 0 || marked.length > 0) throw refuse('the pickle ends with values left over');
        return { value, end: read.at() };
      }
      case 0x28: // MARK
        marked.push(stack);
        stack = [];
        break;
      case 0x30: // POP
        if (stack.length > 0) stack.pop();
        else toMark();
        break;
      case 0x31: // POP_MARK
        toMark();
        break;
      case 0x32: // DUP
        push(top());
        break;
      case 0x4e: // NONE
        push(null);
        break;
      case 0x88: // NEWTRUE
        push(true);
        break;
      case 0x89: // NEWFALSE
        push(false);
        break;
      case 0x49: {
        // INT
        const text = line();
        push(text === '01' ? true : text === '00' ? false : number(text));
        break;
      }
      case 0x4a: // BININT
        push(read.i32());
        break;
      case 0x4b: // BININT1
        push(u8());
        break;
      case 0x4d: // BININT2
        push(read.u16());
        break;
      case 0x4c: // LONG
        push(number(line().replace(/L$/, '')));
        break;
      case 0x8a: // LONG1
        push(read.long(u8()));
        break;
      case 0x8b: // LONG4
        push(read.long(u32()));
        break;
      case 0x46: // FLOAT
        push(number(line().replace(/^([+-]?)inf$/, '$1Infinity')));
        break;
      case 0x47: // BINFLOAT
        push(read.f64());
        break;
      case 0x53: // STRING
        push(read.quoted());
        break;
      case 0x54: // BINSTRING
        push(read.latin1(u32()));
        break;
      case 0x55: // SHORT_BINSTRING
        push(read.latin1(u8()));
        break;
      case 0x56: // UNICODE
        push(
          line().replace(/\\u([0-9a-f]{4})/gi, (_, code: string) =>
            String.fromCharCode(Number.parseInt(code, 16)),
          ),
        );
        break;
      case 0x58: // BINUNICODE
        push(utf8(u32()));
        break;
      case 0x8c: // SHORT_BINUNICODE
        push(utf8(u8()));
        break;
      case 0x8d: // BINUNICODE8
        push(utf8(u64()));
        break;
      case 0x42: // BINBYTES
        push(raw(u32()));
        break;
      case 0x43: // SHORT_BINBYTES
        push(raw(u8()));
        break;
      case 0x8e: // BINBYTES8
        push(raw(u64()));
        break;
      case 0x5d: // EMPTY_LIST
      case 0x29: // EMPTY_TUPLE
        push([]);
        break;
      case 0x6c: // LIST
      case 0x74: // TUPLE
        push(toMark());
        break;
      case 0x85: // TUPLE1
        push([pop()]);
        break;
      case 0x86: // TUPLE2
        push([pop(), pop()].reverse());
        break;
      case 0x87: // TUPLE3
        push([pop(), pop(), pop()].reverse());
        break;
      case 0x61: {
        // APPEND
        const item = pop();
        append(top(), [item]);
        break;
      }
      case 0x65: {
        // APPENDS
        const items = toMark();
        append(top(), items);
        break;
      }
      case 0x7d: // EMPTY_DICT
        push(new Map());
        break;
      case 0x64: {
        // DICT
        const dictionary = new Map<string | number, Pickled>();
        fill(dictionary, toMark());
        push(dictionary);
        break;
      }
      case 0x73: {
        // SETITEM
        const value = pop();
        const key = pop();
        fill(top(), [key, value]);
        break;
      }
      case 0x75: {
        // SETITEMS
        const items = toMark();
        fill(top(), items);
        break;
      }
      case 0x8f: // EMPTY_SET
        push(new Set());
        break;
      case 0x90: {
        // ADDITEMS
        const items = toMark();
        add(top(), items);
        break;
      }
      case 0x91: // FROZENSET
        push(new Set(toMark()));
        break;
      case 0x70: // PUT
        remember(number(line()));
        break;
      case 0x71: // BINPUT
        remember(u8());
        break;
      case 0x72: // LONG_BINPUT
        remember(u32());
        break;
      case 0x94: // MEMOIZE
        remember(memo.size);
        break;
      case 0x67: // GET
        recall(number(line()));
        break;
      case 0x68: // BINGET
        recall(u8());
        break;
      case 0x6a: // LONG_BINGET
        recall(u32());
        break;
      case 0x63: {
        // GLOBAL
        const module = line();
        push(global(`${module}.${line()}`));
        break;
      }
      case 0x93: {
        // STACK_GLOBAL
        const name = pop();
        const module = pop();
        if (typeof name !== 'string' || typeof module !== 'string') throw refuse('expected text as a name');
        push(global(`${module}.${name}`));
        break;
      }
      case 0x52: {
        // REDUCE
        const args = pop();
        push(call(pop(), args));
        break;
      }
      case 0x81: {
        // NEWOBJ
        const args = pop();
        push(call(pop(), args, true));
        break;
      }
      case 0x62: {
        // BUILD
        const state = pop();
        const target = top();
        // A dictionary may have attributes as well (a state dict's `_metadata`); they are not entries and are dropped.
        if (target instanceof Map && (state === null || state instanceof Map)) break;
        if (target instanceof PickledObject) target.state = state;
        else if (!lenient) throw refuse('expected an object to receive a state');
        break;
      }
      case 0x50: // PERSID
        push(names.persistent(line()));
        break;
      case 0x51: // BINPERSID
        push(names.persistent(pop()));
        break;
      default:
        throw refuse(`operation 0x${op.toString(16).padStart(2, '0')} is not supported`);
    }
  }
}

// Finds the fastest tiles of matrix-unit and register kernels on this device.
//
//   node --import tsx bench/matrix-search.ts [--budget SECONDS] [--out FILE] [--small]
//
// Each candidate is first checked against an f64 reference on a small product, then timed on the real shape. A compile
// error, a wrong result or a lost device is recorded and the search continues. The results are written after every group
// of candidates. If the process crashes, the same command with --resume continues where it stopped, without the candidate
// that crashed it.

import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import type { WeightDtype } from '../src/kernels/device/routine.ts';
import { compile, createStorage } from '../src/kernels/device/runtime.ts';
import type { MatrixTile } from '../src/kernels/gemm/matrix-tile.ts';
import type { ThreadTile } from './gemm-thread-tile.ts';
import {
  attempted,
  type Candidate,
  type ConvShape,
  convFlops,
  F16_BIAS,
  F32,
  F32_BIAS,
  FULL,
  type GemmShape,
  gemmFlops,
  type Kind,
  type MatrixOut,
  matrixConvCandidate,
  matrixGemmCandidate,
  type Operand,
  presentCandidate,
  reasonOf,
  TINY,
  threadCandidate,
} from './matrix-candidates.ts';
import { type Check, type Halves, randomHalves } from './matrix-check.ts';
import { type Flags, type MatrixDevice, openMatrixDevice } from './matrix-device.ts';
import {
  convTiles,
  distinct,
  gemmTiles,
  neighbours,
  smallTiles,
  threadNeighbours,
  threadTiles,
} from './matrix-search-tiles.ts';
import { type Ceilings, measureCeilings, timeLaunch } from './matrix-timing.ts';

export interface SearchOptions {
  /** Seconds that the whole search may take. */
  readonly budget?: number;
  /** The file of results, which is rewritten after every group of candidates. */
  readonly out?: string;
  /** Small shapes and few candidates, to try the search itself on a software device. */
  readonly small?: boolean;
  /** Resumes a run that crashed, from its file of results. */
  readonly resume?: boolean;
  readonly log?: (line: string) => void;
}

/** The measurement of one candidate on one shape. */
export interface SearchRecord {
  readonly shape: string;
  readonly flags: Flags;
  readonly kind: Kind;
  readonly name: string;
  readonly tile?: MatrixTile | ThreadTile;
  readonly out: MatrixOut;
  readonly xType?: WeightDtype;
  /** Milliseconds per launch, and TFLOP/s by the operations of the shape's definition. */
  readonly ms?: number;
  readonly tflops?: number;
  /** The rate as a share of the ceiling: of the matrix units, of f16 or of f32, whichever the kernel uses. */
  readonly share?: number;
  readonly check?: Check;
  /** Why there is no time: a failed check, a compile error, a lost device. */
  readonly fault?: string;
}

export interface SearchResults {
  readonly device: string;
  readonly configurations: readonly string[];
  readonly lanes: number;
  readonly workgroupBytes: number;
  readonly maxInvocations: number;
  readonly ceilings: Partial<Record<Flags, Ceilings>>;
  readonly seconds: number;
  readonly records: readonly SearchRecord[];
  /** Candidates that were running when the file was written. */
  readonly running: readonly string[];
}

/** How the message of a timeout starts. */
const NO_ANSWER = 'no answer';

/** Returns a promise that rejects if another one takes too long. */
function within<T>(promise: Promise<T>, seconds: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${NO_ANSWER} in ${seconds} s`)), seconds * 1000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Candidates that are compiled and checked together. A software driver uses all cores for one. */
const GROUP = 8;
const SOFTWARE_GROUP = 1;
/** Seconds after which a candidate is considered hung. */
const PATIENCE = 20;
/** Random f16 values, which are repeated to fill the operands. */
const BLOCK = 2 ** 20;

/** The state of a search: the open device, the operands in its memory, and the records. */
class Search {
  readonly records: SearchRecord[] = [];
  readonly ceilings: Partial<Record<Flags, Ceilings>> = {};
  readonly #options: SearchOptions;
  readonly #log: (line: string) => void;
  readonly #start = performance.now();
  readonly #spent: number;
  readonly #known = new Set<string>();
  /**
   * Candidates that were running when the process crashed. They are tried one by one, so that the crash has one
   * cause.
   */
  readonly #suspects: Set<string>;
  #opened: MatrixDevice | undefined;
  #flags: Flags = 'safe';
  #buffers = new Map<string, GPUBuffer>();
  #bufferShape = '';
  #running: string[] = [];
  #block: Halves | undefined;

  constructor(options: SearchOptions) {
    this.#options = options;
    this.#log = options.log ?? ((line) => console.log(line));
    const before =
      options.resume && options.out && existsSync(options.out) ? this.#read(options.out) : undefined;
    this.#spent = before?.seconds ?? 0;
    this.#suspects = new Set(before?.running);
    for (const record of before?.records ?? []) this.#add(record);
    Object.assign(this.ceilings, before?.ceilings);
    if (before?.running.length === 1) {
      const [flags, shape, kind, ...name] = before.running[0]!.split('|');
      this.#add({
        flags: flags as Flags,
        shape: shape!,
        kind: kind as Kind,
        name: name.join('|'),
        out: F32,
        fault: 'crashed the process',
      });
    }
  }

  #read(file: string): SearchResults {
    return JSON.parse(readFileSync(file, 'utf8')) as SearchResults;
  }

  #key = (flags: Flags, shape: string, kind: Kind, name: string): string =>
    [flags, shape, kind, name].join('|');

  #add(record: SearchRecord): void {
    this.records.push(record);
    this.#known.add(this.#key(record.flags, record.shape, record.kind, record.name));
  }

  get seconds(): number {
    return this.#spent + (performance.now() - this.#start) / 1000;
  }

  get opened(): MatrixDevice {
    if (!this.#opened) throw new Error('expected an open device, got none: call open() first');
    return this.#opened;
  }

  /** Opens a device after closing the previous one. @throws Error if there is none. */
  async open(flags: Flags): Promise<MatrixDevice> {
    this.#drop();
    this.#opened?.device.close();
    this.#flags = flags;
    this.#opened = await openMatrixDevice(flags);
    return this.opened;
  }

  #drop(): void {
    for (const buffer of this.#buffers.values()) buffer.destroy();
    this.#buffers = new Map();
  }

  results(): SearchResults {
    const { description, configurations, lanes, device } = this.opened;
    return {
      device: description,
      configurations,
      lanes,
      workgroupBytes: device.capabilities.workgroupBytes,
      maxInvocations: device.capabilities.maxInvocations,
      ceilings: this.ceilings,
      seconds: this.seconds,
      records: this.records,
      running: this.#running,
    };
  }

  save(): void {
    const { out } = this.#options;
    if (!out) return;
    // A crash while writing must not destroy the earlier results.
    writeFileSync(`${out}.new`, JSON.stringify(this.results(), undefined, 1));
    renameSync(`${out}.new`, out);
  }

  #bufferOf({ name, bytes }: Operand, shape: string): GPUBuffer {
    if (this.#bufferShape !== shape) {
      this.#drop();
      this.#bufferShape = shape;
    }
    const found = this.#buffers.get(name);
    if (found && found.size >= bytes) return found;
    found?.destroy();
    const { device } = this.opened;
    const buffer = createStorage(device, bytes, undefined, name);
    this.#block ??= randomHalves(BLOCK, 7);
    const block = name.endsWith('f16') ? this.#block.bits : this.#block.values;
    if (!name.startsWith('c '))
      for (let at = 0; at < buffer.size; at += block.byteLength)
        device.gpu.queue.writeBuffer(
          buffer,
          at,
          block.buffer,
          0,
          Math.min(block.byteLength, buffer.size - at),
        );
    this.#buffers.set(name, buffer);
    return buffer;
  }

  /** Reopens the device if it was lost, and returns whether it was. */
  async #recover(): Promise<boolean> {
    if (!this.opened.device.isLost()) return false;
    this.#log('the device was lost: opening it again');
    await this.open(this.#flags);
    return true;
  }

  /** Checks and times candidates on a shape, in order, until the search has taken `until` seconds. */
  async measure(
    shape: GemmShape | ConvShape,
    flops: number,
    candidates: readonly (Candidate | string)[],
    until: number,
  ): Promise<void> {
    const fresh = candidates.filter(
      (candidate): candidate is Candidate =>
        typeof candidate !== 'string' &&
        !this.#known.has(this.#key(this.#flags, shape.name, candidate.kind, candidate.name)),
    );
    const suspect = (c: Candidate) => this.#suspects.has(this.#key(this.#flags, shape.name, c.kind, c.name));
    const { software } = this.opened.device.capabilities;
    const size = software ? SOFTWARE_GROUP : GROUP;
    const groups: Candidate[][] = [];
    for (const candidate of fresh) {
      const last = groups.at(-1);
      if (last && last.length < size && !suspect(candidate) && !last.some(suspect)) last.push(candidate);
      else groups.push([candidate]);
    }
    for (const [i, group] of groups.entries()) {
      if (this.seconds > until) {
        this.#log(`  out of time: ${groups.slice(i).flat().length} candidates left out`);
        break;
      }
      await this.#measureGroup(shape, flops, group, software ? [] : (groups[i + 1] ?? []));
    }
    this.#running = [];
    this.save();
    this.#report(shape.name);
  }

  async #measureGroup(
    shape: GemmShape | ConvShape,
    flops: number,
    group: readonly Candidate[],
    next: readonly Candidate[],
  ): Promise<void> {
    this.#running = group.map((c) => this.#key(this.#flags, shape.name, c.kind, c.name));
    this.save();
    const check = (c: Candidate) => within(c.check?.(this.opened) ?? Promise.resolve(undefined), PATIENCE);
    let checks = await Promise.allSettled(group.map(check));
    if (await this.#recover()) {
      // One of them lost the device: run each alone to find out which.
      checks = [];
      for (const candidate of group) {
        checks.push(...(await Promise.allSettled([check(candidate)])));
        if (await this.#recover())
          checks[checks.length - 1] = { status: 'rejected', reason: new Error('lost the device') };
      }
    }
    if (checks.some((c) => c.status === 'rejected' && reasonOf(c.reason).startsWith(NO_ANSWER)))
      await this.open(this.#flags);
    // The driver's threads compile the next group while this one is timed.
    for (const candidate of next) void compile(this.opened.device.gpu, candidate.kernel).catch(() => {});
    for (const [i, candidate] of group.entries()) {
      const { kind, name, tile, out, xType } = candidate;
      const known = {
        shape: shape.name,
        flags: this.#flags,
        kind,
        name,
        ...(tile && { tile }),
        out,
        ...(xType && { xType }),
      };
      const checked = checks[i]!;
      if (checked.status === 'rejected') {
        this.#add({ ...known, fault: reasonOf(checked.reason) });
        continue;
      }
      const found = checked.value;
      const evidence = found ? { check: found } : {};
      if (found && !(found.error <= found.bound)) {
        this.#add({ ...known, ...evidence, fault: 'wrong result' });
        continue;
      }
      try {
        const ranges = candidate.operands.map((o) => ({
          buffer: this.#bufferOf(o, shape.name),
          offset: 0,
          size: o.bytes,
        }));
        const ms = await within(timeLaunch(this.opened, { kernel: candidate.kernel, ranges }), PATIENCE);
        const tflops = flops / ms / 1e9;
        this.#add({ ...known, ...evidence, ms, tflops, share: tflops / this.#ceiling(candidate) });
      } catch (error) {
        this.#add({ ...known, ...evidence, fault: reasonOf(error) });
        if (!(await this.#recover()) && reasonOf(error).startsWith(NO_ANSWER)) await this.open(this.#flags);
      }
    }
    for (const message of this.opened.errors.splice(0).slice(0, 1))
      this.#log(`  device error: ${message.slice(0, 200)}`);
    this.#running = [];
    this.save();
  }

  #ceiling({ kind, tile }: Candidate): number {
    const ceilings = this.ceilings.safe ?? this.ceilings.fast;
    if (!ceilings) return Number.NaN;
    if (kind === 'matrix') return Math.max(...Object.values(ceilings.matrix)) || Number.NaN;
    return tile && 'products' in tile && tile.products === 'f16'
      ? (ceilings.f16 ?? Number.NaN)
      : ceilings.f32;
  }

  /**
   * Returns the records of a shape with a time, fastest first; of one kind if given, with the current flags by
   * default.
   */
  best(shape: string, { kind, flags = this.#flags }: { kind?: Kind; flags?: Flags } = {}): SearchRecord[] {
    return this.records
      .filter(
        (r) => r.shape === shape && r.ms !== undefined && r.flags === flags && (!kind || r.kind === kind),
      )
      .sort((p, q) => p.ms! - q.ms!);
  }

  /** Returns the fastest matrix tiles of a shape, measured with results in f32, no bias and f16 factors. */
  bestTiles(shape: string, count: number, flags?: Flags): MatrixTile[] {
    const found = this.best(shape, { kind: 'matrix', ...(flags && { flags }) }).filter(
      ({ out, xType }) => out.out === 'f32' && !out.bias && xType !== 'f32',
    );
    return found.slice(0, count).map(({ tile }) => tile as MatrixTile);
  }

  /** Logs the fastest candidate of every shape, kind and set of flags. */
  summary(): void {
    for (const shape of new Set(this.records.map((record) => record.shape))) {
      this.#log(shape);
      for (const kind of ['matrix', 'thread', 'present'] as const)
        for (const flags of ['safe', 'fast'] as const) {
          const [first] = this.best(shape, { kind, flags });
          if (first)
            this.#log(
              `  ${first.tflops!.toFixed(first.tflops! < 1 ? 4 : 1).padStart(7)} TFLOP/s ${(100 * first.share!).toFixed(0).padStart(3)} %  ${flags} ${kind} ${first.name}`,
            );
        }
    }
  }

  #report(shape: string): void {
    const faults = this.records.filter(
      (r) => r.shape === shape && r.fault !== undefined && r.flags === this.#flags,
    );
    this.#log(
      `${shape} (${this.#flags}, ${this.seconds.toFixed(0)} s)${faults.length > 0 ? `: ${faults.length} failed, such as ${faults[0]!.name}: ${faults[0]!.fault!.slice(0, 160)}` : ''}`,
    );
    for (const kind of ['matrix', 'thread', 'present'] as const)
      for (const { name, ms, tflops, share } of this.best(shape, { kind }).slice(0, 5))
        this.#log(
          `  ${tflops!.toFixed(tflops! < 1 ? 4 : 1).padStart(7)} TFLOP/s ${(100 * share!).toFixed(0).padStart(3)} %  ${ms!.toFixed(4)} ms  ${kind} ${name}`,
        );
  }
}

/** Runs the search and returns its results; the head of this file describes it. */
export async function search(options: SearchOptions = {}): Promise<SearchResults> {
  const { budget = 120, small = false, log = (line: string) => console.log(line) } = options;
  const run = new Search(options);
  const shapes = small ? TINY : FULL;
  /** Returns the second at which a stage ends, from its share of the budget. */
  const by = (share: number): number => budget * share;
  const few = <T>(list: readonly T[], count: number): readonly T[] => (small ? list.slice(0, count) : list);
  /** Returns tiles of a quarter of the area if `small`, which a software driver compiles in a second. */
  const sized = (tiles: readonly MatrixTile[]): MatrixTile[] =>
    small ? tiles.map((tile) => ({ ...tile, rows: tile.rows / 2, columns: tile.columns / 2 })) : [...tiles];

  await run.open('safe');
  const { units } = run.opened;
  log(
    `${run.opened.description}; ${run.opened.lanes} lanes; units ${run.opened.configurations.join(', ') || 'none'}`,
  );
  log(
    `workgroup memory ${run.opened.device.capabilities.workgroupBytes} bytes, ${run.opened.device.capabilities.maxInvocations} invocations, f16 ${run.opened.device.capabilities.f16}, timestamps ${run.opened.device.capabilities.timestamps}`,
  );
  run.ceilings.safe ??= await measureCeilings(run.opened, small, log);
  run.save();

  const onGemm = (
    shape: GemmShape,
    tiles: readonly MatrixTile[],
    until: number,
    out = F32,
    bType: WeightDtype = 'f16',
  ) =>
    run.measure(
      shape,
      gemmFlops(shape),
      tiles.map((tile) => attempted(() => matrixGemmCandidate(run.opened, tile, shape, out, bType))),
      until,
    );
  const onConv = (
    shape: ConvShape,
    tiles: readonly MatrixTile[],
    until: number,
    out = F32,
    xType: WeightDtype = 'f16',
  ) =>
    run.measure(
      shape,
      convFlops(shape),
      tiles.map((tile) => attempted(() => matrixConvCandidate(run.opened, tile, shape, out, xType))),
      until,
    );
  const onThreads = (shape: GemmShape, tiles: readonly ThreadTile[], until: number) =>
    run.measure(
      shape,
      gemmFlops(shape),
      tiles.map((tile) => attempted(() => threadCandidate(run.opened, tile, shape))),
      until,
    );
  const near = (shape: string, count: number) =>
    distinct(run.bestTiles(shape, count).flatMap((tile) => few(neighbours(tile, units), 3)));

  // The library's own kernels come first: candidates are compared with them, and they take two measurements per shape.
  for (const shape of [shapes.largest, ...shapes.gemms.slice(0, 1)])
    await run.measure(
      shape,
      gemmFlops(shape),
      (['f32', 'f16'] as const).map((type) => presentCandidate(run.opened, shape, type)),
      by(0.08),
    );

  if (units.length > 0) {
    await onGemm(shapes.largest, few(sized(gemmTiles(units)), 12), by(0.2));
    await onGemm(shapes.largest, near(shapes.largest.name, 2), by(0.29));
    await onConv(shapes.largestConv, few(sized(convTiles(units)), 8), by(0.42));
    await onConv(shapes.largestConv, near(shapes.largestConv.name, 2), by(0.49));
    for (const [i, shape] of shapes.gemms.entries())
      await onGemm(
        shape,
        few(distinct([...run.bestTiles(shapes.largest.name, 4), ...sized(smallTiles(units))]), 4),
        by(0.49 + (0.13 * (i + 1)) / shapes.gemms.length),
      );
    for (const [i, shape] of shapes.convs.entries())
      await onConv(
        shape,
        few(
          distinct([...run.bestTiles(shapes.largestConv.name, 6), ...sized(convTiles(units)).slice(0, 6)]),
          3,
        ),
        by(0.62 + (0.12 * (i + 1)) / shapes.convs.length),
      );
    // What layers need: a bias with results in f16, and a bias with activations in f32.
    for (const shape of [shapes.largest, ...shapes.gemms.slice(0, 2)]) {
      await onGemm(shape, run.bestTiles(shape.name, 3), by(0.76), F16_BIAS);
      await onGemm(shape, run.bestTiles(shape.name, 3), by(0.77), F32_BIAS, 'f32');
    }
    await onConv(shapes.largestConv, run.bestTiles(shapes.largestConv.name, 3), by(0.78), F16_BIAS);
    await onConv(shapes.largestConv, run.bestTiles(shapes.largestConv.name, 3), by(0.79), F32_BIAS, 'f32');

    // How much do Dawn's bounds checks and zeroed workgroup memory cost, and are other tiles faster without them?
    const [gemmBest, convBest] = [
      run.bestTiles(shapes.largest.name, 8),
      run.bestTiles(shapes.largestConv.name, 8),
    ];
    const gemmsBest = shapes.gemms.map((shape) => [shape, run.bestTiles(shape.name, 2)] as const);
    const convsBest = shapes.convs.map((shape) => [shape, run.bestTiles(shape.name, 2)] as const);
    await run.open('fast');
    await onGemm(shapes.largest, few(gemmBest, 3), by(0.82));
    await onConv(shapes.largestConv, few(convBest, 3), by(0.85));
    for (const [shape, tiles] of gemmsBest) await onGemm(shape, few(tiles, 1), by(0.87));
    for (const [shape, tiles] of convsBest) await onConv(shape, few(tiles, 1), by(0.88));
    await run.open('safe');
  }

  await onThreads(shapes.largest, few(threadTiles(), 6), by(0.93));
  const threads = () =>
    run.best(shapes.largest.name, { kind: 'thread' }).map(({ tile }) => tile as ThreadTile);
  const bestOf = (products: WeightDtype, stored: WeightDtype) =>
    threads().filter((t) => t.products === products && t.stored === stored);
  const leaders = () =>
    [bestOf('f32', 'f32')[0], bestOf('f16', 'f16')[0], bestOf('f32', 'f16')[0]].filter(
      (t) => t !== undefined,
    );
  await onThreads(shapes.largest, few(distinct(leaders().flatMap(threadNeighbours)), 4), by(0.97));
  for (const shape of shapes.gemms.slice(0, 3))
    await onThreads(
      shape,
      few(distinct([...leaders(), ...bestOf('f32', 'f32').slice(0, 3), ...threadTiles().slice(0, 3)]), 3),
      by(0.985),
    );
  const threadBest = leaders();
  if (run.seconds < by(1)) {
    await run.open('fast');
    await onThreads(shapes.largest, threadBest, by(1));
  }
  // Uses the rest of the time to try the neighbours of the best tiles, until there are no new ones.
  if (units.length > 0 && run.seconds < by(0.95)) await run.open('safe');
  for (
    let before = -1;
    units.length > 0 && !small && run.seconds < by(0.95) && before < run.records.length;
  ) {
    before = run.records.length;
    await onConv(shapes.largestConv, near(shapes.largestConv.name, 3), by(0.98));
    await onGemm(shapes.largest, near(shapes.largest.name, 3), by(0.98));
    for (const shape of shapes.gemms) await onGemm(shape, near(shape.name, 1), by(0.98));
    for (const shape of shapes.convs) await onConv(shape, near(shape.name, 1), by(0.98));
  }
  run.summary();
  log(
    `${run.records.length} measurements in ${run.seconds.toFixed(0)} s${options.out ? `; results: ${options.out}` : ''}`,
  );
  run.save();
  return run.results();
}

/** Reads the command line and runs the search. */
export async function main(args: readonly string[]): Promise<void> {
  const value = (name: string): string | undefined => {
    const at = args.indexOf(name);
    return at < 0 ? undefined : args[at + 1];
  };
  const out = value('--out');
  await search({
    budget: Number(value('--budget') ?? 120),
    small: args.includes('--small'),
    resume: args.includes('--resume'),
    ...(out && { out }),
  });
}

// This file is also a program, including as a bundle of this name.
if (/matrix-search\.[cm]?[jt]s$/.test(process.argv[1] ?? ''))
  await main(process.argv.slice(2)).then(
    () => process.exit(0),
    (error: unknown) => {
      console.error(error);
      process.exit(1);
    },
  );

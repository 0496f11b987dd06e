// Gives a device the fastest tiles that are known for it, and a search for the others.

import type { Device } from './device.ts';
import { knownDevice } from './known-tiles.ts';
import type { Launch } from './launch.ts';
import { classKey, type ShapeClass } from './shape-class.ts';
import { type Choice, searchPlan, withChoices } from './tile-search.ts';
import { timedWork } from './timed-work.ts';

/** Progress of a search: classes of shapes that are done, of those that were found so far. */
export interface TuneProgress {
  readonly done: number;
  readonly total: number;
}

export interface TuningOptions {
  /**
   * Whether to search for tiles. Default: only for classes of shapes that are not remembered, and only on devices for
   * which no measured tiles are shipped. `true` searches anew, `false` never.
   */
  readonly tune?: boolean | undefined;
  /** The tiles that earlier searches on this device found, by `classKey`. Values of other types are ignored. */
  readonly remembered?: ReadonlyMap<string, unknown> | undefined;
  /** Keeps a tile that a search found. */
  readonly remember?: ((key: string, tile: string) => Promise<void>) | undefined;
  readonly onTune?: ((progress: TuneProgress) => void) | undefined;
  /** Milliseconds that all searches of the device may take together. Default: 20 seconds. */
  readonly budgetMs?: number | undefined;
}

const BUDGET_MS = 20_000;

/** Returns the device with the tiles that are known for it, and with `tune` if it may search. */
export function tunedDevice(device: Device, options: TuningOptions = {}): Device {
  const { tune, remembered = new Map<string, unknown>(), remember, onTune } = options;
  const { description, tiles: shipped } = device.capabilities;
  const found = new Map<string, string>();
  const rememberedTile = (key: string): string | undefined => {
    const tile = tune === true ? undefined : remembered.get(key);
    return typeof tile === 'string' ? tile : undefined;
  };
  const tiles = {
    get: (shape: ShapeClass) => {
      const key = classKey(shape);
      return found.get(key) ?? rememberedTile(key) ?? shipped?.get(shape);
    },
  };
  const tuned = { ...device, capabilities: { ...device.capabilities, tiles } };
  if (tune === false || (tune === undefined && knownDevice(description)?.measured)) return tuned;
  let left = options.budgetMs ?? BUDGET_MS;
  const search = async (launches: readonly Launch[]): Promise<readonly Launch[]> => {
    const unknown = launches.filter(({ kernel: { tuning } }) => {
      if (!tuning) return false;
      const key = classKey(tuning.shape);
      return !found.has(key) && rememberedTile(key) === undefined;
    });
    if (unknown.length === 0) return launches;
    const keep = async (choices: readonly Pick<Choice, 'shape' | 'tile'>[]): Promise<void> => {
      for (const { shape, tile } of choices) found.set(classKey(shape), tile);
      await Promise.all(choices.map(({ shape, tile }) => remember?.(classKey(shape), tile)));
    };
    const start = performance.now();
    try {
      const choices = await searchPlan(launches, unknown, {
        prepare: (work) => timedWork({ ...tuned, onCompile: undefined }, work),
        now: () => performance.now(),
        deadline: start + left,
        onProgress: (done, total) => onTune?.({ done, total }),
      });
      await keep(choices);
    } catch (error) {
      // A candidate may have lost the device: then the next start must not try it again.
      if (device.isLost()) await keep(unknown.map(({ kernel: { tuning } }) => tuning!));
      throw error;
    } finally {
      left = Math.max(0, left - (performance.now() - start));
    }
    return withChoices(launches, (shape) => found.get(classKey(shape)));
  };
  return { ...tuned, tune: search };
}

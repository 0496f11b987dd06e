// One run of `bench -- device`: its results, its steps and its devices. The run happens once on a rented machine, so no
// failure may end it: a step that throws, hangs or loses the device is recorded as `{ error }`, and the results are
// written after every step.

import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { withTiles } from '../../src/graph/models/open-model.ts';
import { userCache } from '../../src/graph/node/user-cache.ts';
import { type Device, type Family, openDevice } from '../../src/kernels/device/device.ts';
import { announceStep, howItEnded } from './supervise.ts';
import { timedResults } from './timed-results.ts';

export interface SessionOptions {
  /** Folder that holds `weights/` and `bench/device.py`. */
  readonly root: string;
  /** The file of results; undefined until the adapter's name is known. */
  readonly out: string | undefined;
  /** Seconds that the whole run may take. */
  readonly budget: number;
  readonly torch: string | undefined;
  /** When the run began, by `Date.now`. If an earlier process died, this is before this process started. */
  readonly began: number;
}

/** The time limit and the output of a step. */
export interface Step {
  /** Returns the milliseconds left of the step's own budget and of the whole run's, whichever are fewer. */
  readonly left: () => number;
  /** Returns whether the step should end and return what it has. */
  readonly over: () => boolean;
  /** Prints a line. */
  readonly say: (text: string) => void;
  /** Writes what the step has so far, so that a killed run keeps it. */
  readonly keep: (partial: unknown) => void;
}

/** How much longer than its budget a step may take before it is abandoned; steps should end by themselves. */
const GRACE_MS = 20_000;

export const messageOf = (error: unknown): string =>
  error instanceof Error ? `${error.name}: ${error.message}` : String(error);

/** Starts a run. Its errors are recorded from now on, including uncaught exceptions of this process. */
export function newSession(options: SessionOptions) {
  const results: Record<string, unknown> = {};
  const deviceErrors: string[] = [];
  const open = new Map<string, Device>();
  let out = options.out;

  const elapsed = (): number => (Date.now() - options.began) / 1000;
  const left = (): number => 1000 * (options.budget - elapsed());

  const write = (): void => {
    if (!out) return;
    const timed = timedResults(results);
    try {
      // JSON has no NaN and no infinity, and no bigint.
      const text = JSON.stringify(
        {
          ...results,
          seconds: Number(elapsed().toFixed(1)),
          deviceErrors,
          // What `bench compare` reads.
          device: (results.start as { readonly name?: string } | undefined)?.name,
          families: [...new Set(timed.flatMap(({ family }) => family ?? []))],
          results: timed,
        },
        (_, value: unknown) =>
          typeof value === 'bigint'
            ? Number(value)
            : typeof value === 'number' && !Number.isFinite(value)
              ? String(value)
              : value,
        1,
      );
      writeFileSync(`${out}.part`, `${text}\n`);
      renameSync(`${out}.part`, out);
    } catch (error) {
      console.error(`bench device: cannot write ${out}: ${messageOf(error)}`);
    }
  };

  const closeDevices = (): void => {
    for (const device of open.values()) {
      try {
        device.close();
      } catch {
        // a device that cannot be closed is lost; a new one replaces it
      }
    }
    open.clear();
  };

  /** Returns what a step has recorded. */
  const found = (name: string): unknown => {
    const [section, key] = name.split('.') as [string, string | undefined];
    const value = results[section];
    return key === undefined ? value : (value as Record<string, unknown> | undefined)?.[key];
  };

  /** Records an error that no step catches: a validation error, a lost device, an exception in a callback. */
  const note = (text: string): void => {
    if (deviceErrors.length < 200) deviceErrors.push(`${elapsed().toFixed(1)} s: ${text.slice(0, 500)}`);
  };

  process.on('uncaughtException', (error) => note(`uncaught ${messageOf(error)}`));
  process.on('unhandledRejection', (error) => note(`unhandled ${messageOf(error)}`));

  return {
    options,
    results,
    elapsed,
    left,
    write,
    note,
    deviceErrors,
    closeDevices,
    setOut(file: string): void {
      out = file;
    },
    out: () => out,

    device: openShared,

    /**
     * Returns the device as a model uses it, with the tiles that earlier runs found, and a search of at most 20 seconds
     * for others where the product searches.
     */
    async tunedDevice(): Promise<Device> {
      return withTiles(await openShared(), { cache: userCache() });
    },

    /** Runs `make` and adds the errors of devices to its result. A time with errors is not that of the whole work. */
    async withErrors<T extends object>(
      make: () => Promise<T>,
    ): Promise<T & { readonly deviceErrors?: string[] }> {
      const before = deviceErrors.length;
      const value = await make();
      const errors = deviceErrors.slice(before, before + 5);
      for (const text of errors) console.log(`${''.padStart(6)}    DEVICE ERROR ${text.slice(0, 200)}`);
      return errors.length > 0 ? { ...value, deviceErrors: errors } : value;
    },

    /** Reads the results of a process that died. The step in which it died is not run again. */
    resume(): void {
      try {
        const {
          start: _,
          seconds: _seconds,
          deviceErrors: savedErrors,
          results: _results,
          ...saved
        } = JSON.parse(readFileSync(out ?? '', 'utf8')) as Record<string, unknown>;
        Object.assign(results, saved);
        deviceErrors.push(...((savedErrors as string[] | undefined) ?? []));
        const { running, crashed = [] } = results as {
          readonly running?: string;
          readonly crashed?: string[];
        };
        if (running === undefined) return;
        results.crashed = [...crashed, running];
        delete results.running;
        const [section, key] = running.split('.') as [string, string | undefined];
        const before = found(running);
        const kept = Array.isArray(before) ? { partial: before } : (before as object | undefined);
        const value = { ...kept, error: howItEnded() };
        results[section] = key === undefined ? value : { ...(results[section] as object), [key]: value };
        write();
      } catch (error) {
        note(`cannot resume: ${messageOf(error)}`);
      }
    },

    /** Records the errors of a device that a step opened itself. */
    watch,

    /** Runs a step with a time limit. Records under `name` what it returns, or why it returned nothing. */
    async step<T>(name: string, seconds: number, body: (step: Step) => Promise<T>): Promise<T | undefined> {
      const [section, key] = name.split('.') as [string, string | undefined];
      const record = (value: unknown): void => {
        if (key === undefined) results[section] = value;
        else results[section] = { ...(results[section] as object | undefined), [key]: value };
        write();
      };
      if (name !== 'start' && found(name) !== undefined) {
        console.log(`${elapsed().toFixed(1).padStart(6)} s  ${name}: already in the results`);
        return undefined;
      }
      if (left() < 5000) {
        record({ skipped: 'the budget of the whole run is spent' });
        console.log(`${elapsed().toFixed(1).padStart(6)} s  ${name}: skipped, the budget is spent`);
        return undefined;
      }
      const start = performance.now();
      const errorsBefore = deviceErrors.length;
      const budget = Math.min(1000 * seconds, left());
      const stepLeft = (): number => Math.min(budget - (performance.now() - start), left());
      let abandoned = false;
      const step: Step = {
        left: stepLeft,
        over: () => abandoned || stepLeft() <= 0,
        say: (text) => console.log(`${''.padStart(6)}    ${text}`),
        keep: (partial) => {
          if (!abandoned) record(partial);
        },
      };
      if (name !== 'start') {
        results.running = name;
        write();
      }
      // The timer below ends a step that waits; only the parent process can end one that blocks this thread.
      announceStep({ step: name, milliseconds: budget + 2 * GRACE_MS, out });
      console.log(`${elapsed().toFixed(1).padStart(6)} s  ${name} ...`);
      let timer: NodeJS.Timeout | undefined;
      const timedOut = new Promise<never>((_, reject) => {
        timer = setTimeout(
          () => reject(new Error(`not done in ${((budget + GRACE_MS) / 1000).toFixed(0)} s`)),
          budget + GRACE_MS,
        );
      });
      let value: T | undefined;
      try {
        const running = body(step);
        running.catch(() => {}); // an abandoned step may still reject, and nothing waits for it
        value = await Promise.race([running, timedOut]);
        record(value);
      } catch (error) {
        const partial = found(name);
        const kept = Array.isArray(partial) ? { partial } : typeof partial === 'object' ? partial : {};
        record({ ...kept, error: messageOf(error) });
        console.log(`${''.padStart(6)}    FAILED: ${messageOf(error).slice(0, 300)}`);
        // The step may have left its devices in any state, so the next one opens new ones.
        abandoned = true;
        closeDevices();
      } finally {
        clearTimeout(timer);
        delete results.running;
        write();
      }
      const took = (performance.now() - start) / 1000;
      const errors = deviceErrors.length - errorsBefore;
      console.log(
        `${elapsed().toFixed(1).padStart(6)} s  ${name}: ${took.toFixed(1)} s${errors ? `, ${errors} device errors` : ''}`,
      );
      return value;
    },
  };

  /** Returns an open device with kernels of a family, the device's own by default. Reopens a lost device. */
  async function openShared(family?: Family): Promise<Device> {
    const key = family ?? '';
    const found = open.get(key);
    if (found && !found.isLost()) return found;
    const made = await openDevice(family ? { family } : {});
    watch(made, key || made.capabilities.family);
    open.set(key, made);
    return made;
  }

  function watch(device: Device, name: string): void {
    device.gpu.addEventListener('uncapturederror', (event) => {
      note(`${name}: ${(event as GPUUncapturedErrorEvent).error.message}`);
    });
    device.lost.then(
      (info) => {
        const { reason, message } = info as GPUDeviceLostInfo;
        if (reason !== 'destroyed') note(`${name}: device lost: ${message}`);
      },
      () => undefined,
    );
  }
}

export type Session = ReturnType<typeof newSession>;

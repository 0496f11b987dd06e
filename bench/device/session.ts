// One run of `bench -- device`: its results, its steps and its devices. The run happens once on a rented machine, so
// nothing that fails may end it: a step that throws, hangs or loses the device is recorded as `{ error }`, and the
// results are written after every step.

import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { type Device, type Family, openDevice } from '../../src/kernels/device/device.ts';
import { tellStart } from './supervise.ts';

export interface SessionOptions {
  /** Folder that holds `weights/` and `bench/device.py`. */
  readonly root: string;
  /** Where results are written; undefined until the adapter's name is known. */
  readonly out: string | undefined;
  /** Seconds that the whole run may take. */
  readonly budget: number;
  readonly torch: string | undefined;
  /** When the run began, by `Date.now`: before this process did, if another one died. */
  readonly began: number;
}

/** What a step may use, and until when. */
export interface Step {
  /** Milliseconds left of the step's own budget and of the whole run's. */
  readonly left: () => number;
  /** True once the step ought to end: it returns what it has. */
  readonly over: () => boolean;
  /** Prints a line. */
  readonly say: (text: string) => void;
  /** Writes what the step has so far; a killed run keeps it. */
  readonly keep: (partial: unknown) => void;
}

/** A step gets this much longer than its budget before it is given up on, as it is expected to end by itself. */
const GRACE_MS = 20_000;

export const messageOf = (error: unknown): string =>
  error instanceof Error ? `${error.name}: ${error.message}` : String(error);

export function newSession(options: SessionOptions) {
  const results: Record<string, unknown> = {};
  const deviceErrors: string[] = [];
  const open = new Map<string, Device>();
  let out = options.out;

  const elapsed = (): number => (Date.now() - options.began) / 1000;
  const left = (): number => 1000 * (options.budget - elapsed());

  const write = (): void => {
    if (!out) return;
    try {
      // JSON has no NaN and no infinity, and no bigint.
      const text = JSON.stringify(
        { ...results, seconds: Number(elapsed().toFixed(1)), deviceErrors },
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
        // a device that cannot even be closed is lost, and a new one is opened in its place
      }
    }
    open.clear();
  };

  /** What a step has recorded. */
  const found = (name: string): unknown => {
    const [section, key] = name.split('.') as [string, string | undefined];
    const value = results[section];
    return key === undefined ? value : (value as Record<string, unknown> | undefined)?.[key];
  };

  /** Records an error that no promise rejects with: validation errors, lost devices, exceptions in callbacks. */
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

    /** An open device of a family (the device's own if none is given); a lost one is opened again. */
    async device(family?: Family): Promise<Device> {
      const key = family ?? '';
      const found = open.get(key);
      if (found && !found.isLost()) return found;
      const made = await openDevice(family ? { family } : {});
      watch(made, key || made.capabilities.family);
      open.set(key, made);
      return made;
    },

    /** Runs `make` and adds what devices complained of meanwhile: a time that comes with such is of work not done. */
    async withErrors<T extends object>(
      make: () => Promise<T>,
    ): Promise<T & { readonly deviceErrors?: string[] }> {
      const before = deviceErrors.length;
      const value = await make();
      const told = deviceErrors.slice(before, before + 5);
      for (const text of told) console.log(`${''.padStart(6)}    DEVICE ERROR ${text.slice(0, 200)}`);
      return told.length > 0 ? { ...value, deviceErrors: told } : value;
    },

    /** Takes over the results of a process that died; the step that it died in is not tried again. */
    resume(): void {
      try {
        const {
          start: _,
          seconds: _seconds,
          deviceErrors: told,
          ...saved
        } = JSON.parse(readFileSync(out ?? '', 'utf8')) as Record<string, unknown>;
        Object.assign(results, saved);
        deviceErrors.push(...((told as string[] | undefined) ?? []));
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
        const value = { ...kept, error: 'the process died in this step' };
        results[section] = key === undefined ? value : { ...(results[section] as object), [key]: value };
        write();
      } catch (error) {
        note(`nothing to resume: ${messageOf(error)}`);
      }
    },

    /** Reports what a device complains of, of a device that a step opened by itself. */
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
        console.log(`${elapsed().toFixed(1).padStart(6)} s  ${name}: done before`);
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
      // The promise below ends a step that waits; only another process can end one that blocks this thread.
      tellStart({ step: name, milliseconds: budget + 2 * GRACE_MS, out });
      console.log(`${elapsed().toFixed(1).padStart(6)} s  ${name} ...`);
      let timer: NodeJS.Timeout | undefined;
      const gaveUp = new Promise<never>((_, reject) => {
        timer = setTimeout(
          () => reject(new Error(`gave up after ${((budget + GRACE_MS) / 1000).toFixed(0)} s`)),
          budget + GRACE_MS,
        );
      });
      let value: T | undefined;
      try {
        const running = body(step);
        running.catch(() => {}); // a step that was given up on may still reject, and nothing waits for it
        value = await Promise.race([running, gaveUp]);
        record(value);
      } catch (error) {
        const partial = found(name);
        const kept = Array.isArray(partial) ? { partial } : typeof partial === 'object' ? partial : {};
        record({ ...kept, error: messageOf(error) });
        console.log(`${''.padStart(6)}    FAILED: ${messageOf(error).slice(0, 300)}`);
        // Whatever state the step left its devices in, the next one starts with new ones.
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

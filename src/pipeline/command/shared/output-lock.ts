// Lets one program at a time write an output file. While a program writes OUT, the small file `OUT.lock` lies next to it.
//
// The lock is created exclusively, which is atomic on local and on network file systems. Its holder renews its time stamp.
// A lock is stale if its time stamp is old, or if its process has ended, which only its own machine can tell. So a killed
// program never blocks others on its machine, and others elsewhere for at most a minute. The best known package,
// proper-lockfile, cannot tell a killed program from a busy one: a killed run would block its own --resume.

import { randomBytes } from 'node:crypto';
import { readlinkSync } from 'node:fs';
import { open, readFile, rm, stat, utimes } from 'node:fs/promises';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { UsageError } from '../../../errors.ts';
import { systemCode } from '../../images/failures.ts';
import { systemPath } from '../../node/system-path.ts';

/** Milliseconds after which a lock that was not renewed is stale, and milliseconds between two renewals. */
const STALE = 60_000;
const RENEWAL = 15_000;

/** Milliseconds to wait while another program removes a stale lock. */
const PAUSE = 20;

/** A lock that is held. */
export interface Lock {
  release(): Promise<void>;
}

interface Owner {
  readonly pid: number;
  /** The machine, and on Linux its process namespace: containers may share the host's name, but not its numbers. */
  readonly host: string;
  readonly token: string;
}

function thisHost(): string {
  try {
    return `${hostname()} ${readlinkSync('/proc/self/ns/pid')}`;
  } catch {
    return hostname();
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemCode(error) === 'EPERM';
  }
}

/** Tokens of the locks that this process holds. A lock of this process number with another token is of an earlier process. */
const held = new Set<string>();

function ownerOf(text: string): Owner | undefined {
  try {
    const { pid, host, token } = JSON.parse(text);
    return { pid: Number(pid), host: String(host), token: String(token) };
  } catch {
    return undefined; // it is being written, or it is damaged; its age decides
  }
}

function isStale(owner: Owner | undefined, age: number): boolean {
  if (age > STALE) return true;
  if (owner?.host !== thisHost()) return false;
  return owner.pid === process.pid ? !held.has(owner.token) : !isAlive(owner.pid);
}

/**
 * Removes a stale lock. If several programs found it stale, one at a time may remove it, and checks again first. Otherwise a
 * slow program could remove the lock that a fast one has created in the meantime.
 */
async function removeStale(path: string): Promise<void> {
  const turn = `${path}.removal`;
  try {
    await (await open(systemPath(turn), 'wx')).close();
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error;
    const other = await read(turn);
    if (other && other.age > STALE) await rm(systemPath(turn), { force: true });
    else await sleep(PAUSE);
    return;
  }
  try {
    const found = await read(path);
    if (found && isStale(ownerOf(found.content), found.age)) await rm(systemPath(path), { force: true });
  } finally {
    await rm(systemPath(turn), { force: true });
  }
}

/** Reads a lock, and its age in milliseconds. Returns undefined if it is gone. */
async function read(path: string): Promise<{ readonly content: string; readonly age: number } | undefined> {
  try {
    const { mtimeMs } = await stat(systemPath(path));
    return { content: await readFile(systemPath(path), 'utf8'), age: Date.now() - mtimeMs };
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/**
 * Takes the lock of a file.
 *
 * @throws UsageError if another program holds it; the system's error if no lock can be created.
 */
export async function lockFile(file: string): Promise<Lock> {
  const path = `${file}.lock`;
  const owner: Owner = { pid: process.pid, host: thisHost(), token: randomBytes(12).toString('hex') };
  held.add(owner.token);
  try {
    await create(file, path, owner);
  } catch (error) {
    held.delete(owner.token);
    throw error;
  }
  const renew = () => utimes(systemPath(path), new Date(), new Date()).catch(() => undefined);
  const timer = setInterval(renew, RENEWAL).unref();
  return {
    async release() {
      clearInterval(timer);
      if (!held.delete(owner.token)) return;
      const now = await read(path).catch(() => undefined);
      if (now && ownerOf(now.content)?.token === owner.token) await rm(systemPath(path), { force: true });
    },
  };
}

/** How often a stale lock is replaced; another program may be faster each time. */
const ATTEMPTS = 5;

/** Creates a lock, and replaces a stale one. */
async function create(file: string, path: string, owner: Owner): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      const handle = await open(systemPath(path), 'wx');
      await handle.writeFile(`${JSON.stringify(owner)}\n`);
      await handle.close();
      return;
    } catch (error) {
      if (systemCode(error) !== 'EEXIST') throw error;
      const found = await read(path);
      const other = found && ownerOf(found.content);
      if (found && (attempt > ATTEMPTS || !isStale(other, found.age)))
        throw new UsageError(
          `${file}: another program is writing to it${other ? ` (process ${other.pid} on ${other.host.split(' ')[0]})` : ''}; ` +
            'name another output, or wait until that program ends',
        );
      if (found) await removeStale(path);
    }
  }
}

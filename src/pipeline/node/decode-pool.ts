// Threads that decode large image files and fit them to a model. A photo of 12 megapixels takes 100 ms, which the thread
// that feeds the device does not have. Threads are started when some large files have come, and where none can be (in a
// bundle, which has no file for them), everything is decoded on the calling thread.

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { fault } from '../images/failures.ts';
import { type DecodeReply, type DecodeRequest, READY } from './decode-messages.ts';

/** Large files before threads are started, which takes as long as decoding a few of them. */
const LARGE_BEFORE_START = 3;

/** The most threads. libvips decodes in Node's thread pool, which has 4. */
const MOST_THREADS = 8;

/** Returns the program of a thread: compiled, or the source if this file is source. Throws if this is a CommonJS bundle. */
const ownProgram = () => new URL(`./decode-worker${import.meta.url.slice(-3)}`, import.meta.url);

/** Starts a thread. From source it first registers the loader of TypeScript, which threads do not inherit. */
function newWorker(program: URL): Worker {
  if (!program.href.endsWith('.ts')) return new Worker(program);
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx'));
  const api = JSON.stringify(new URL('./esm/api/index.mjs', tsx).href);
  const main = JSON.stringify(program.href);
  const code = `import(${api}).then(({ register }) => { register(); return import(${main}); })`;
  return new Worker(code, { eval: true, execArgv: [] });
}

/** Whether threads were found not to start in this process. */
let unavailable = false;

interface Thread {
  readonly worker: Worker;
  ready: boolean;
  /** Settles the request that it works on. */
  settle: ((reply: DecodeReply | Error) => void) | undefined;
}

/** Threads that decode; see `newDecodePool`. */
export interface DecodePool {
  /**
   * Loads an image in a thread, after those asked for before. Returns undefined while there are no threads: the caller
   * then decodes. The reply rejects with `ItemError` `decoder-failed` if its thread ends.
   */
  readonly load: (request: DecodeRequest) => Promise<DecodeReply> | undefined;
  /** Whether a thread works or an image waits for one. */
  readonly busy: () => boolean;
  /** Ends the threads, also those that work. */
  readonly close: () => void;
}

/**
 * Returns a pool of at most `limit` threads, and of as many as there are cores. It starts none before they are needed.
 * Tests give it the path of another `program`.
 */
export function newDecodePool(limit: number, program?: string): DecodePool {
  const size = Math.min(limit, MOST_THREADS, availableParallelism());
  const threads: Thread[] = [];
  const queue: { readonly request: DecodeRequest; readonly settle: Thread['settle'] }[] = [];
  let large = 0;
  let starting = false;
  let closed = false;

  const assign = () => {
    for (const thread of threads) {
      if (!thread.ready || thread.settle) continue;
      const next = queue.shift();
      if (next === undefined) return;
      thread.settle = next.settle;
      thread.worker.ref();
      thread.worker.postMessage(next.request);
    }
  };

  const finish = (thread: Thread, reply: DecodeReply | Error) => {
    const { settle } = thread;
    thread.settle = undefined;
    thread.worker.unref();
    settle?.(reply);
  };

  /** Removes a thread that ended. Its item fails; others wait for the next thread, or are decoded by the caller. */
  const drop = (thread: Thread, error: Error | undefined, file: URL) => {
    threads.splice(threads.indexOf(thread), 1);
    if (!thread.ready && !closed) unavailable = true;
    finish(
      thread,
      fault('decoder-failed', `its decoder ended: ${error?.message ?? 'no reason given'}`, error),
    );
    if (!closed && !unavailable) start(file);
    else if (threads.length === 0) for (const { settle } of queue.splice(0)) settle?.(undefined);
  };

  const start = (file: URL) => {
    const worker = newWorker(file);
    const thread: Thread = { worker, ready: false, settle: undefined };
    threads.push(thread);
    worker.unref();
    let failed: Error | undefined;
    worker.on('message', (message: DecodeReply | typeof READY) => {
      if (message === READY) thread.ready = true;
      else finish(thread, message);
      assign();
    });
    worker.on('error', (error) => {
      failed = error instanceof Error ? error : new Error(String(error));
    });
    worker.on('exit', () => drop(thread, failed, file));
  };

  const startAll = async () => {
    starting = true;
    try {
      const file = program === undefined ? ownProgram() : pathToFileURL(program);
      if (!existsSync(fileURLToPath(file))) throw new Error('the program of the threads is missing');
      await import('sharp'); // it must be loaded here before it is in a thread, or it ends the process on some systems
      while (!closed && threads.length < size) start(file);
    } catch {
      unavailable = true;
    }
  };

  return {
    load(request) {
      large++;
      if (unavailable || closed || large <= LARGE_BEFORE_START) return undefined;
      if (!starting) void startAll();
      if (!threads.some(({ ready }) => ready)) return undefined;
      return new Promise((resolve, reject) => {
        const settle = (reply: DecodeReply | Error) =>
          reply instanceof Error ? reject(reply) : resolve(reply);
        queue.push({ request, settle });
        assign();
      });
    },
    busy: () => queue.length > 0 || threads.some(({ settle }) => settle !== undefined),
    close() {
      closed = true;
      for (const { worker } of threads) void worker.terminate();
    },
  };
}

// Keeps what drivers print off standard error, which belongs to the command's own lines.
//
// Dawn prints two warnings ("maxDynamicUniformBuffersPerPipelineLayout artificially reduced ...") at every request for
// an adapter of Mesa's software driver, and more if there is no driver. It prints with C's fprintf, has no toggle or
// callback that stops it, and Node has no call that redirects a file descriptor; so dup2 of the C library is called.

import { closeSync, openSync } from 'node:fs';
import type { DriverCall } from '../../../kernels/device/adapters.ts';

const STDERR = 2;

/** Loads the C library's functions. Returns undefined if they cannot be called. */
async function loadLibc() {
  // Only Vulkan's drivers print, and only Linux has them in a C library that Node shares.
  if (process.platform !== 'linux') return undefined;
  try {
    const { default: koffi } = await import('koffi');
    const libc = koffi.load(null);
    return {
      dup: libc.func('int dup(int)') as (fd: number) => number,
      dup2: libc.func('int dup2(int, int)') as (from: number, to: number) => number,
    };
  } catch {
    // No FFI on this platform: the messages appear, and everything else works.
    return undefined;
  }
}

/**
 * Returns a function that runs a call with standard error leading nowhere. The redirection ends when the call returns
 * and not when its promise settles: Dawn finds adapters and opens devices before it returns.
 */
export async function silentDriver(): Promise<DriverCall> {
  const libc = await loadLibc();
  if (!libc) return (call) => call();
  return (call) => {
    const kept = libc.dup(STDERR);
    // Standard error is closed: nothing appears anyway.
    if (kept < 0) return call();
    try {
      const nowhere = openSync('/dev/null', 'w');
      libc.dup2(nowhere, STDERR);
      closeSync(nowhere);
      return call();
    } finally {
      libc.dup2(kept, STDERR);
      closeSync(kept);
    }
  };
}

// Exports a shipped model's network for onnxruntime, with PyTorch.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Network } from './cases.ts';
import { PYTHON_PACKAGES } from './versions.ts';

function run(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): void {
  const { status, error, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    timeout: 240_000,
  });
  if (error) throw error;
  if (status !== 0) throw new Error(stderr.trim().split('\n').at(-1) ?? `status ${status}`);
}

/**
 * Returns the path of the network as an ONNX file, which is kept in the folder.
 * @throws Error with Python's last line if it is not possible on this machine.
 */
export function exportUnet(options: {
  readonly folder: string;
  readonly python: string;
  readonly work: Network;
}): string {
  const { folder, python, work } = options;
  const file = join(folder, `${work.id}-${work.result[0]}.onnx`);
  if (existsSync(file)) return file;
  const packages = join(folder, 'python');
  try {
    if (!existsSync(packages))
      run(python, ['-m', 'pip', 'install', '--quiet', '--no-deps', '--target', packages, ...PYTHON_PACKAGES]);
    const script = join(import.meta.dirname, 'export-unet.py');
    run(python, [script, work.model, String(work.result[0]), file], { PYTHONPATH: packages });
  } catch (error) {
    throw new Error(`the export to ONNX failed: ${(error as Error).message}`);
  }
  return file;
}

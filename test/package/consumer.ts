// Installs the packed package in an empty project, as its users do. The project contains nothing else of this checkout
// except the dependencies in package.json.

import { execFileSync, spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

export const ROOT = join(import.meta.dirname, '..', '..');

interface Manifest {
  readonly dependencies: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly peerDependencies: Readonly<Record<string, string>>;
}

export const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Manifest;

export interface Consumer {
  readonly folder: string;
  /** The bytes of the packed package, and its files. */
  readonly size: number;
  readonly files: readonly string[];
  /** Writes a file of the project. */
  write(path: string, text: string): void;
  remove(): void;
}

/** Creates an empty project and installs the packed package, and further packages of the checkout. */
export function newConsumer(...extra: readonly string[]): Consumer {
  const folder = mkdtempSync(join(tmpdir(), 'diffclass-consumer-'));
  const packed = JSON.parse(
    execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], {
      cwd: ROOT,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }),
  ) as unknown;
  // npm 11 prints a list, later versions print a record by name.
  const [info] = Object.values(
    packed as Record<string, { filename: string; size: number; files: { path: string }[] }>,
  );
  const modules = join(folder, 'node_modules');
  const own = join(modules, 'diffclass-stream');
  mkdirSync(own, { recursive: true });
  execFileSync('tar', ['-xzf', join(folder, info!.filename), '-C', own, '--strip-components=1']);
  const { dependencies, optionalDependencies = {}, peerDependencies } = manifest;
  const names = [...Object.keys({ ...dependencies, ...optionalDependencies, ...peerDependencies }), ...extra];
  for (const name of new Set(names)) {
    const link = join(modules, name);
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(join(ROOT, 'node_modules', name), link);
  }
  const write = (path: string, text: string) => {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  };
  write('package.json', JSON.stringify({ name: 'consumer', version: '1.0.0', type: 'module' }));
  cpSync(join(ROOT, 'weights/fashion-mnist/samples'), join(folder, 'photos'), { recursive: true });
  return {
    folder,
    size: info!.size,
    files: info!.files.map(({ path }) => path),
    write,
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

export interface Ended {
  readonly status: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs a program in a folder and waits for its end. */
export const runIn = (folder: string, program: string, args: readonly string[]): Promise<Ended> =>
  new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '';
    let err = '';
    child.stdout.on('data', (chunk) => {
      out += chunk;
    });
    child.stderr.on('data', (chunk) => {
      err += chunk;
    });
    child.on('error', reject);
    child.on('close', (status) => resolve({ status, out, err }));
  });

/** Compiles a project with the checkout's TypeScript and returns its output, which is empty without errors. */
export const compiled = async (
  folder: string,
  options: Readonly<Record<string, unknown>>,
  files: readonly string[],
) => {
  writeFileSync(
    join(folder, 'tsconfig.json'),
    JSON.stringify({
      compilerOptions: {
        target: 'ES2023',
        module: 'NodeNext',
        moduleResolution: 'NodeNext',
        strict: true,
        exactOptionalPropertyTypes: true,
        noUncheckedIndexedAccess: true,
        skipLibCheck: false,
        noEmit: true,
        ...options,
      },
      files,
    }),
  );
  const { out, err } = await runIn(folder, process.execPath, [join(ROOT, 'node_modules/typescript/bin/tsc')]);
  return out + err;
};

// The kernels on matrix units on a driver that has some: the software driver of a newer Mesa, which test/mesa26.sh
// unpacks. Only if TEST_MESA26=1, because that downloads about 70 MB once.

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const run = promisify(execFile);
const asked = process.env.TEST_MESA26 === '1';
const folder =
  process.env.MESA26 ??
  join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'diffclass-stream', 'mesa26');
const MINUTES = 60_000;

/** How a program that failed ended. */
interface Failure extends Error {
  readonly code?: number | null;
  readonly signal?: string | null;
  readonly stderr?: string;
}

/** Returns why the driver is not here, after trying to unpack it, or undefined if it is. */
async function missing(): Promise<string | undefined> {
  if (!asked)
    return 'set TEST_MESA26=1 to test the matrix family on a newer Mesa (70 MB are downloaded once)';
  if (existsSync(join(folder, 'run'))) return undefined;
  if (process.platform !== 'linux' || process.arch !== 'x64') return 'the newer Mesa is for Linux on x64';
  try {
    await run('bash', [join('test', 'mesa26.sh'), folder]);
    return undefined;
  } catch (error) {
    return `the newer Mesa could not be unpacked: ${(error as { stderr?: string }).stderr?.trim() || error}`;
  }
}

it(
  'kernels on matrix units match their references on Mesa 26',
  async (context) => {
    const reason = await missing();
    if (reason) {
      if (asked) console.error(`tests: the matrix family was skipped: ${reason}`);
      return context.skip(reason);
    }
    // The variables that tell Vitest that it runs in a test are not for the Vitest that it starts.
    const outside = Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !name.startsWith('VITEST') && name !== 'NODE_ENV'),
    );
    const files = [
      'gemm',
      'linear',
      'conv2d',
      'attention',
      'matrix',
      'weight-gradient',
      'attention-backward',
      'adapters',
    ];
    const results = await mkdtemp(join(tmpdir(), 'diffclass-mesa26-'));
    const file = join(results, 'report.json');
    const ended = await run(
      join(folder, 'run'),
      [
        'node',
        join('node_modules', 'vitest', 'vitest.mjs'),
        'run',
        '--project=device',
        '--pool=threads',
        '--reporter=json',
        `--outputFile=${file}`,
        '--testNamePattern=matrix',
        // A test that is late ends its thread, and Dawn aborts the process if a thread ends before its work is done.
        `--testTimeout=${30 * MINUTES}`,
        ...files.map((name) => join('test', 'kernels', `${name}.test.ts`)),
        join('test', 'graph', 'precisions.test.ts'),
      ],
      { maxBuffer: 2 ** 28, env: outside },
    ).catch((error: Failure) => error);
    const text = await readFile(file, 'utf8').catch(() => {
      const { message, code, signal, stderr = '' } = ended as Failure;
      const lines = stderr.split('\n').filter((line) => line !== '' && !line.startsWith('Warning: '));
      throw new Error(
        `expected a report of the tests on Mesa 26, got none (${signal ?? `status ${code}`}): ${message.split('\n')[0]}\n${lines.slice(-20).join('\n')}`,
      );
    });
    const report = JSON.parse(text) as {
      readonly numPassedTests: number;
      readonly testResults: readonly {
        readonly assertionResults: readonly {
          readonly status: string;
          readonly fullName: string;
          readonly failureMessages: readonly string[];
        }[];
      }[];
    };
    await rm(results, { recursive: true });
    const failed = report.testResults
      .flatMap(({ assertionResults }) => assertionResults)
      .filter(({ status }) => status === 'failed')
      .map(({ fullName, failureMessages }) => `${fullName}: ${failureMessages[0]?.slice(0, 300)}`);
    console.error(`tests: ${report.numPassedTests} tests of the matrix family passed on Mesa 26`);
    expect(failed).toEqual([]);
    expect(report.numPassedTests).toBeGreaterThan(100);
  },
  40 * MINUTES,
);

// Tests the output of the program in a pseudo-terminal of 80 columns, with NO_COLOR, with TERM=dumb, and in a pipe.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { displayWidth } from '../../src/pipeline/command/subcommands/classify/display-width.ts';
import { textLines } from '../../src/pipeline/command/subcommands/classify/text-lines.ts';
import type { Classified } from '../../src/pipeline/types.ts';
import { cli, linesOf } from './captured-cli.ts';
import { goodImages, temporaryFolder, write } from './image-files.ts';

vi.setConfig({ testTimeout: 120_000 });

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Runs a command in a terminal of `columns`, and writes the output that the terminal receives. */
const PTY = `
import fcntl, os, pty, struct, sys, termios
pid, fd = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', 24, int(sys.argv[1]), 0, 0))
    os.execvp(sys.argv[2], sys.argv[2:])
while True:
    try: data = os.read(fd, 65536)
    except OSError: break
    if not data: break
    os.write(1, data)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`;

const python = spawnSync('python3', ['-c', 'import pty']).status === 0;

/** Runs the program in a terminal; `delay` milliseconds per batch leave time to draw progress. */
function inTerminal(argv: readonly string[], env: NodeJS.ProcessEnv = {}, columns = 80, delay = 15) {
  const command = [
    '--import',
    'tsx',
    'test/pipeline/fake-cli.ts',
    String(delay),
    ...argv,
    '--model',
    './fake',
  ];
  const child = spawnSync('python3', ['-c', PTY, String(columns), process.execPath, ...command], {
    cwd: ROOT,
    encoding: 'utf8',
    env: { ...process.env, NO_COLOR: undefined, TERM: 'xterm-256color', ...env },
  });
  return { raw: child.stdout, status: child.status, lines: screen(child.stdout) };
}

/** Returns the lines that a terminal shows after carriage returns and erased lines; the program sends no other codes. */
function screen(raw: string): string[] {
  const lines = [''];
  let column = 0;
  const escapeCharacter = String.fromCharCode(27);
  for (const token of raw.replaceAll(`${escapeCharacter}[K`, '\0').split(/([\r\n\0])/)) {
    const line = lines.at(-1)!;
    if (token === '\r') column = 0;
    else if (token === '\n') {
      lines.push('');
      column = 0;
    } else if (token === '\0') lines[lines.length - 1] = line.slice(0, column);
    else {
      expect(token).not.toContain(escapeCharacter);
      lines[lines.length - 1] = line.slice(0, column) + token + line.slice(column + token.length);
      column += token.length;
    }
  }
  return lines.filter((line) => line !== '');
}

const images = () => {
  const folder = temporaryFolder();
  goodImages(folder, 25);
  write(folder, {
    'bad.png': 'hello',
    'a name so long that it cannot be shown whole on a terminal of eighty columns.png': 'x',
  });
  return folder;
};

const RESULT =
  /^(ant|bee|cat|dog|elk|fox|gnu|hen|ibis|jay) +\d+\.\d %[ ?] {2}or (ant|bee|cat|dog|elk|fox|gnu|hen|ibis|jay) +\d+\.\d % +\S*\.png$/;
const FAILURE = /^failed {2,}\S.*: its first bytes are those of no image format$/;
const OWN = /^diffclass-stream: [^\r]+$/;

describe('in a terminal', () => {
  beforeEach(({ skip }) => skip(!python, 'a pseudo-terminal needs python3 with its module pty'));

  test.each([
    ['xterm', {}],
    ['NO_COLOR', { NO_COLOR: '1' }],
    ['TERM=dumb', { TERM: 'dumb' }],
  ])('%s: results, failures and the summary are lines of their own, at most 80 columns wide', (name, env) => {
    const { raw, status, lines } = inTerminal([images()], env);
    expect(status).toBe(1);
    expect(lines.filter((line) => RESULT.test(line))).toHaveLength(25);
    expect(lines.filter((line) => FAILURE.test(line))).toHaveLength(2);
    expect(lines.at(-1)).toMatch(/^diffclass-stream: 25 images classified in .*, 2 failed$/);
    expect(lines.filter((line) => !RESULT.test(line) && !FAILURE.test(line) && !OWN.test(line))).toEqual([]);
    for (const line of lines.slice(0, -1)) expect(displayWidth(line)).toBeLessThanOrEqual(80);
    if (name === 'TERM=dumb') expect(raw).not.toContain('\x1b');
    else expect(raw).toMatch(/\r\d+ of 27 images/);
  });

  test('--format jsonl prints whole lines without progress in them', () => {
    const { lines } = inTerminal([images(), '--format', 'jsonl'], {}, 500);
    const json = lines.filter((line) => line.startsWith('{'));
    expect(json).toHaveLength(27);
    for (const line of json) expect(() => JSON.parse(line)).not.toThrow();
    expect(lines.filter((line) => !line.startsWith('{') && !OWN.test(line))).toEqual([]);
  });

  test('a usage error is one sentence', () => {
    expect(inTerminal(['evalute', '.']).lines).toEqual([
      'diffclass-stream: "evalute" is neither a command nor a file; did you mean evaluate?',
    ]);
  });

  test('results that a pipe sends to another program of the same terminal do not mix with progress', () => {
    const script = `${JSON.stringify(process.execPath)} --import tsx test/pipeline/fake-cli.ts 15 --model ./fake ${images()} | cat`;
    const child = spawnSync('python3', ['-c', PTY, '2000', 'bash', '-c', script], {
      cwd: ROOT,
      encoding: 'utf8',
      env: { ...process.env, TERM: 'xterm-256color' },
    });
    const lines = screen(child.stdout);
    expect(lines.filter((line) => line.startsWith('{'))).toHaveLength(27);
    expect(lines.filter((line) => !line.startsWith('{') && !OWN.test(line))).toEqual([]);
    expect(child.stdout).not.toContain('\x1b');
  });
});

describe('in a pipe', () => {
  const piped = (argv: readonly string[], shell = '') => {
    const command = [
      process.execPath,
      '--import',
      'tsx',
      'test/pipeline/fake-cli.ts',
      '0',
      ...argv,
      '--model',
      './fake',
    ];
    return spawnSync('bash', ['-c', `"$@" ${shell}`, 'bash', ...command], { cwd: ROOT, encoding: 'utf8' });
  };

  test('prints JSON lines, and only whole lines on standard error', () => {
    const { stdout, stderr } = piped([images()]);
    expect(linesOf(stdout)).toHaveLength(27);
    for (const line of stderr.trimEnd().split('\n')) expect(line).toMatch(OWN);
    expect(stderr).not.toContain('\x1b');
    expect(piped([images(), '-q']).stderr).toBe('');
  });

  test.for([[['.']], [['--help']], [['--version']], [['.', '--format', 'csv']]])(
    '%j on a full device is one sentence, with status 2',
    ([argv], { skip }) => {
      skip(process.platform !== 'linux', 'only Linux has /dev/full');
      const [first = '', ...rest] = argv!;
      const { status, stderr } = piped([first === '.' ? images() : first, '-q', ...rest], '> /dev/full');
      expect(stderr).toBe('diffclass-stream: standard output cannot be written (ENOSPC)\n');
      expect(status).toBe(2);
    },
  );

  test('a folder as standard input is one sentence', () => {
    const { status, stderr } = piped(['-'], `< ${images()}`);
    expect([status, stderr]).toEqual([
      2,
      'diffclass-stream: standard input is a folder; name the folder as INPUT instead of -\n',
    ]);
  });
});

describe('lines of text', () => {
  const result = (changes: Partial<Classified>): Classified => ({
    path: 'photos/a.png',
    label: 'cat',
    classidx: 0,
    probability: 0.75,
    top: [
      { label: 'cat', classidx: 0, probability: 0.75, error: 0.5, stderr: 0, evaluations: 3 },
      { label: 'guinea pig', classidx: 1, probability: 0.25, error: 0.6, stderr: 0.1, evaluations: 3 },
    ],
    margin: 0.5,
    decided: true,
    evaluations: 6,
    seconds: 0.25,
    seed: 0,
    model: 'fake',
    ...changes,
  });
  const labels = ['cat', 'guinea pig'];

  test('have aligned columns, and undecided images are marked', () => {
    const line = textLines({ labels });
    expect(line(result({}))).toBe('cat          75.0 %   or guinea pig 25.0 %  photos/a.png\n');
    expect(line(result({ decided: false, probability: 1, top: [] }))).toBe(
      `cat         100.0 %?${' '.repeat(24)}photos/a.png\n`,
    );
    expect(line({ path: 'b', error: { code: 'empty', message: 'the file has 0 bytes' } })).toBe(
      'failed      b: the file has 0 bytes\n',
    );
  });

  test('have columns for --timings and --energy', () => {
    const line = textLines({ labels, timings: true, energy: true });
    expect(line(result({ energy: -12.34, energyLevels: 3 }))).toContain('energy -12.3  0.25 s  photos/a.png');
  });

  test.each([20, 40, 60, 80, 120])('have at most %i columns, with wide characters counted twice', (width) => {
    const line = textLines({ labels: ['三毛猫'.repeat(20), 'é'.repeat(50)], width });
    for (const changes of [
      {},
      { path: `${'写真/'.repeat(40)}猫.png` },
      { label: '三毛猫'.repeat(20) },
      { path: 'x'.repeat(500) },
    ])
      expect(displayWidth(line(result(changes)).trimEnd())).toBeLessThanOrEqual(width);
    const failure = { path: 'x'.repeat(500), error: { code: 'empty', message: 'y'.repeat(500) } };
    expect(displayWidth(line(failure).trimEnd())).toBeLessThanOrEqual(width);
  });

  test('are the default on a terminal; files and pipes get JSON lines; --format overrides both', async () => {
    const folder = temporaryFolder();
    goodImages(folder, 1);
    const terminal = { isTTY: true, columns: 80 };
    const run = async (...argv: string[]) =>
      (await cli([folder, '-q', ...argv], undefined, '', undefined, terminal)).out;
    expect(await run()).toMatch(/^ant /);
    expect(linesOf(await run('--format', 'jsonl'))).toHaveLength(1);
    expect(await run('--format', 'csv')).toMatch(/^path,label/);
    expect(linesOf((await cli([folder, '-q'])).out)).toHaveLength(1);
    expect((await cli([folder, '-q', '--format', 'text'])).out).toMatch(/^ant /);
    expect(await run('--output', join(folder, 'r.jsonl'))).toBe('');
  });
});

// Runs the command line in this process, with a fake model and captured streams.

import { PassThrough } from 'node:stream';
import { main } from '../../src/pipeline/command/main.ts';
import type { OpenFolder } from '../../src/pipeline/command/shared/model-choice.ts';
import { fakeDescribe, fakeFolder } from './fake-folder.ts';

/** The exit status and the output of a run. */
export interface Outcome {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

/** Runs the command line; the model is ./fake unless `argv` names one. */
export async function cli(
  argv: readonly string[],
  openModel: OpenFolder = fakeFolder(),
  stdin: string | Uint8Array = '',
  describe = fakeDescribe(),
  terminal: { readonly isTTY?: boolean; readonly columns?: number } = {},
): Promise<Outcome> {
  const stdout = Object.assign(new PassThrough(), terminal);
  const texts: string[] = [];
  stdout.setEncoding('utf8');
  let out = '';
  stdout.on('data', (text: string) => {
    out += text;
  });
  const source = (async function* () {
    yield Buffer.from(stdin);
  })();
  const stderr = { ...terminal, write: (text: string) => texts.push(text) };
  const named =
    argv.includes('--model') ||
    argv[0] === 'optimal' ||
    (argv[0] === 'info' && argv[1]?.startsWith('-') === false);
  const model = named ? [] : ['--model', './fake'];
  const status = await main([...argv, ...model], { openModel, describe, stdin: source, stdout, stderr });
  return { status, out, err: texts.join('') };
}

/** Parses lines of JSON. */
// biome-ignore lint/suspicious/noExplicitAny: a test says what it expects of a line
export const linesOf = (out: string): any[] =>
  out
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));

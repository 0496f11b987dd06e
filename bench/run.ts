// What every benchmark does first and last: it reads its options, and keeps a JSON file of its results.

import { type ParseArgsConfig, parseArgs } from 'node:util';
import { type Device, type Family, openDevice } from '../src/kernels/device/device.ts';
import { FAMILIES } from '../src/kernels/device/families.ts';
import { jsonFile } from '../src/pipeline/command/shared/json-file.ts';
import { readManifest } from '../src/pipeline/command/shared/provenance.ts';

/** An option of a benchmark: that of `parseArgs`, with its help. */
type BenchOption = NonNullable<ParseArgsConfig['options']>[string] & { readonly help: string };

const JSON_OPTION = {
  json: { type: 'string', help: 'also write the results to this file, after each one' },
} as const satisfies Record<string, BenchOption>;

/** Returns a line of the help for each option. */
function helpText(options: Readonly<Record<string, BenchOption>>): string {
  const rows = Object.entries(options).map(([name, { type, default: fallback, help }]) => [
    `--${name}${type === 'boolean' ? '' : ' <value>'}`,
    `${help}${fallback === undefined || fallback === false || `${fallback}` === '' ? '' : ` (${fallback})`}`,
  ]);
  const width = Math.max(...rows.map(([flag]) => flag!.length));
  return rows.map(([flag, help]) => `  ${flag!.padEnd(width)}  ${help}`).join('\n');
}

/**
 * Reads the options of a benchmark from the command line; each also has `--json FILE` and `--help`. `record` adds a result
 * to that file at once, so that a run that is ended early loses none, and the device that it was measured on. `operands` names further arguments, which are
 * refused without it. A wrong option ends the process with status 2.
 */
export function openBench<const T extends Readonly<Record<string, BenchOption>>>(
  name: string,
  options: T,
  operands = '',
) {
  const all = { ...options, ...JSON_OPTION };
  if (process.argv.includes('--help')) {
    console.log(`npm run bench -- ${name} [options] ${operands}`.trimEnd());
    console.log(`\n${helpText(all)}`);
    process.exit(0);
  }
  const parse = () => parseArgs({ options: all, allowPositionals: operands !== '' });
  let read: ReturnType<typeof parse>;
  try {
    read = parse();
  } catch (error) {
    console.error(`bench ${name}: ${(error as Error).message} (--help lists the options)`);
    process.exit(2);
  }
  const { values, positionals } = read;
  const path = (values as { readonly json?: string }).json;
  const results: object[] = [];
  const save = path === undefined ? undefined : jsonFile(path);
  const head: Record<string, unknown> = {
    bench: name,
    version: readManifest().version,
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    date: new Date().toISOString(),
    options: values,
  };
  save?.({ ...head, results });
  return {
    values,
    positionals,
    record(result: object, device?: Device): void {
      results.push(result);
      if (device) {
        const { description, family } = device.capabilities;
        Object.assign(head, { device: description, families: [family] });
      }
      save?.({ ...head, results });
    },
  };
}

/** Opens the device with kernels of a family, by default its own. Another name ends the process with status 2. */
export async function openFamily(family: string | undefined): Promise<Device> {
  if (family === undefined) return openDevice();
  if (!(FAMILIES as readonly string[]).includes(family)) {
    console.error(`bench: --family: expected one of ${FAMILIES.join(', ')}, got "${family}"`);
    process.exit(2);
  }
  return openDevice({ family: family as Family });
}

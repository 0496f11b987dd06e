// Tests that every command that opens a model has --device, and passes it to the model with the option that silences the
// driver.

import { PassThrough } from 'node:stream';
import { expect, test } from 'vitest';
import type { OpenModelOptions } from '../../src/graph/models/open-model.ts';
import type { DriverCall } from '../../src/kernels/device/adapters.ts';
import { main } from '../../src/pipeline/command/main.ts';
import { cli } from './captured-cli.ts';
import { fakeDescribe, fakeFolder } from './fake-folder.ts';
import { goodImages, temporaryFolder } from './image-files.ts';

test.each(['classify', 'match', 'purify', 'calibrate', 'attack', 'evaluate', 'doctor'])(
  '%s --help lists it',
  async (command) => {
    const { status, out } = await cli([command, '--help']);
    expect(status).toBe(0);
    expect(out).toContain('--device <n|name>');
    // The doctor measures no kernels.
    expect(out.includes('--no-tune')).toBe(command !== 'doctor');
  },
);

test('info, which opens no model, does not have it', async () => {
  expect((await cli(['info', '--help'])).out).not.toContain('--device');
});

/** Runs a command on one image and returns how the model was opened. */
async function opened(argv: readonly string[], driverCall: DriverCall): Promise<OpenModelOptions> {
  const folder = temporaryFolder();
  goodImages(folder, 1);
  const seen: OpenModelOptions[] = [];
  const status = await main([...argv, '--model', './fake', folder], {
    openModel: fakeFolder({ opened: (_, options) => seen.push(options) }),
    silentDriver: async () => driverCall,
    describe: fakeDescribe(),
    stdout: new PassThrough().resume(),
    stderr: { write: () => true },
  });
  expect(status).toBe(0);
  return seen[0]!;
}

test('it reaches the model, with a silenced driver and the progress of compiling', async () => {
  const quiet: DriverCall = (call) => call();
  const options = await opened(['--device', '1'], quiet);
  expect(options.device).toEqual({ adapter: '1', driverCall: quiet });
  expect(options.onCompile).toBeTypeOf('function');
  expect((await opened([], quiet)).device).toEqual({ driverCall: quiet });
});

test('at the debug level drivers may print', async () => {
  expect((await opened(['--log-level', 'debug'], (call) => call())).device).toEqual({});
});

test('--tune and --no-tune reach the model; without them the device decides whether to measure kernels', async () => {
  const quiet: DriverCall = (call) => call();
  expect((await opened(['--tune'], quiet)).tune).toBe(true);
  expect((await opened(['--no-tune'], quiet)).tune).toBe(false);
  const options = await opened([], quiet);
  expect(options).not.toHaveProperty('tune');
  expect(options.onTune).toBeTypeOf('function');
});

// Runs the command line as a real process with a fake model. The first argument is the milliseconds per batch. If
// TELL_BATCHES is set, it reports the start of every batch on standard error.

import { main } from '../../src/pipeline/command/main.ts';
import { processArguments } from '../../src/pipeline/command/shared/process-arguments.ts';
import { fakeDescribe, fakeFolder } from './fake-folder.ts';

const [delay, ...argv] = processArguments();
const onBatch = process.env.TELL_BATCHES ? () => process.stderr.write('a batch begins\n') : undefined;
const openModel = fakeFolder({ delay: Number(delay), forget: true, ...(onBatch ? { onBatch } : {}) });
process.exit(await main(argv, { openModel, describe: fakeDescribe() }));

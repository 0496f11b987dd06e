// The command line as a real process, with a fake model; the first argument is the milliseconds of a batch.
// With TELL_BATCHES set it says on standard error when a batch begins.

import { main } from '../../src/pipeline/command/main.ts';
import { processArguments } from '../../src/pipeline/command/shared/process-arguments.ts';
import { fakeDescribe, fakeFolder } from './fake-folder.ts';

const [delay, ...argv] = processArguments();
const onBatch = process.env.TELL_BATCHES ? () => process.stderr.write('a batch begins\n') : undefined;
const openModel = fakeFolder({ delay: Number(delay), forget: true, ...(onBatch ? { onBatch } : {}) });
process.exit(await main(argv, { openModel, describe: fakeDescribe() }));

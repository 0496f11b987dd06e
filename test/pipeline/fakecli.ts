// The command line as a real process, with a fake model; the first argument is the milliseconds of a batch.

import { main } from '../../src/pipeline/command/main.ts';
import { fakeFolder } from './fakefolder.ts';

const [delay, ...argv] = process.argv.slice(2);
process.exit(await main(argv, { openModel: fakeFolder({ delay: Number(delay), forget: true }) }));

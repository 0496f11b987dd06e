#!/usr/bin/env node
// The program: the command line on the process's own streams, with models from the graph.

import { describeModel, openModel } from '../../graph/node/open-model.ts';
import { main } from './main.ts';
import { silentDriver } from './shared/driver-messages.ts';
import { processArguments } from './shared/process-arguments.ts';

// A closed standard error must not end a run whose results still go somewhere.
process.stderr.on('error', () => {});

// Ended by hand: a driver's threads or an idle standard input would keep the process alive.
process.exit(await main(processArguments(), { openModel, describe: describeModel, silentDriver }));

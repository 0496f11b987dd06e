#!/usr/bin/env node
// The program: runs the command line on the streams of the process, with the models of the graph.

import { describeModel, openModel } from '../../graph/node/open-model.ts';
import { main } from './main.ts';
import { silentDriver } from './shared/driver-messages.ts';
import { processArguments } from './shared/process-arguments.ts';

// If standard error is closed, the run goes on: its results still go somewhere.
process.stderr.on('error', () => {});

// The process is ended explicitly, because a driver's threads or an idle standard input would keep it alive.
process.exit(await main(processArguments(), { openModel, describe: describeModel, silentDriver }));

// `npm run bench -- device`: everything about one device in one command, within minutes. What can it do, are the
// kernels' results right on it, how fast is every kernel next to the device's own peaks, how fast is whole work?
//
//   npm run bench -- device [--mode support,test,perf,work] [--torch python3] [--out FILE] [--budget SECONDS]
//                           [--root FOLDER]
//
// --root (or the variable DIFFCLASS_ROOT) is the folder that holds `weights/` and `bench/device.py`; default: the
// current one. Without --out the results go to bench/results/<device>.json under it.

import { mkdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { ditXl2, stableDiffusion, timeNetwork } from './networks.ts';
import { measurePeaks } from './peak.ts';
import { chosenEntries, suiteEntries, timeEntries, withoutChecks } from './perf.ts';
import { report } from './report.ts';
import { newSession } from './session.ts';
import { firstLabel, timeGradients, timeModels, timePipeline } from './shipped.ts';
import { support } from './support.ts';
import { testKernels } from './test.ts';
import { runTorch } from './torch.ts';

const MODES = ['support', 'test', 'perf', 'work'] as const;

const slug = (name: string): string =>
  name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '') || 'unknown';

export async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      mode: { type: 'string', default: MODES.join() },
      torch: { type: 'string' },
      out: { type: 'string' },
      budget: { type: 'string', default: '450' },
      root: { type: 'string', default: process.env.DIFFCLASS_ROOT ?? '.' },
    },
  });
  const modes = new Set(values.mode.split(','));
  const unknown = [...modes].find((mode) => !(MODES as readonly string[]).includes(mode));
  if (unknown !== undefined) {
    console.error(`bench device: expected --mode with some of ${MODES.join(', ')}, got "${unknown}"`);
    process.exitCode = 2;
    return;
  }
  const budget = Number(values.budget);
  if (!(budget > 0)) {
    console.error(`bench device: expected --budget with a number of seconds, got "${values.budget}"`);
    process.exitCode = 2;
    return;
  }
  const root = resolve(values.root);
  const session = newSession({
    root,
    out: values.out ? resolve(values.out) : undefined,
    budget,
    torch: values.torch,
  });
  const { results, step } = session;
  /** The share of the whole budget, in seconds. */
  const share = (part: number): number => part * budget;

  Object.assign(results, {
    bench: 'device',
    date: new Date().toISOString(),
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    modes: [...modes],
    budget,
  });

  await step('start', 30, async ({ say }) => {
    const { capabilities, name } = await session.device();
    if (!session.out()) session.setOut(join(root, 'bench', 'results', `${slug(name)}.json`));
    mkdirSync(dirname(session.out()!), { recursive: true });
    say(`results: ${session.out()}`);
    return { name, software: capabilities.software };
  });
  if (!session.out()) session.setOut(join(root, 'bench', 'results', 'unknown.json'));
  const software = (results.start as { readonly software?: boolean } | undefined)?.software ?? false;

  // What is cold is measured before anything else compiles a pipeline.
  if (modes.has('work')) await step('firstLabel', share(0.1), (at) => firstLabel(session, at));
  if (modes.has('support')) await step('support', share(0.05), (at) => support(session, at));

  // Peaks are what everything else divides by, and what later steps predict their time from.
  const peak = (modes.has('perf') || modes.has('work')
    ? await step('perf.peak', share(0.08), (at) => measurePeaks(session, at))
    : undefined) ?? { gflops: 50, gbytes: 5 };

  if (modes.has('work')) {
    await step('work.unet', share(0.16), (at) =>
      timeNetwork(session, at, stableDiffusion, [1, 4, 16], { gflops: peak.gflops }),
    );
    await step('work.models', share(0.08), (at) =>
      timeModels(session, at, [16, 64, 128, 256, 1024, 4096], peak.gflops),
    );
    await step('work.pipeline', share(0.08), (at) =>
      timePipeline(session, at, {
        images: software ? 256 : 4000,
        batchSizes: software ? [undefined] : [undefined, 1024],
      }),
    );
    await step('work.gradient', share(0.04), (at) => timeGradients(session, at, [64, 256]));
  }
  if (modes.has('test')) await step('test', share(0.14), (at) => testKernels(session, at));
  if (modes.has('perf'))
    await step('perf.large', share(0.09), (at) => timeEntries(session, at, undefined, chosenEntries, peak));
  if (values.torch)
    await step('torch', share(0.28), (at) =>
      runTorch(session, at, {
        entries: modes.has('perf') ? chosenEntries : [],
        unet: modes.has('work') ? (software ? [1] : [1, 4, 16]) : [],
        compile: !software,
      }),
    );
  if (modes.has('work'))
    await step('work.dit', share(0.06), (at) =>
      timeNetwork(session, at, ditXl2, [8], { gflops: peak.gflops }),
    );
  if (modes.has('perf')) {
    await step('perf.withoutChecks', share(0.03), (at) => withoutChecks(session, at, peak));
    await step('perf.cases', share(0.1), (at) => timeEntries(session, at, undefined, suiteEntries, peak));
    const own = (await session.device().catch(() => undefined))?.capabilities.family;
    for (const family of ['tile', 'plain', 'subgroup'] as const)
      if (family !== own) {
        const possible = await session.device(family).then(
          () => true,
          () => false,
        );
        if (possible)
          await step(`perf.cases-${family}`, share(0.05), (at) =>
            timeEntries(session, at, family, suiteEntries, peak, { samples: 3 }),
          );
      }
  }
  results.done = true;
  session.write();
  session.closeDevices();
  console.log(`\n${report(results)}\n`);
  console.log(`${session.elapsed().toFixed(1)} s; results: ${session.out()}`);
  // A step that was given up on may still wait for something that never comes.
  process.exit(0);
}

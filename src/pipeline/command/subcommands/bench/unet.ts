// `bench unet`: what does one evaluation of a model cost, where does the time go, and how long is the device idle?

import { kernelShares, shareLine } from '../../../../bench/kernel-shares.ts';
import { disturbanceText } from '../../../../bench/kernel-table.ts';
import { type ModelTiming, timeModel } from '../../../../bench/model-timing.ts';
import { millisecondsText } from '../../../../bench/table.ts';
import { UsageError } from '../../../../errors.ts';
import { loadModel } from '../../../../graph/models/open-model.ts';
import { modelFiles } from '../../../../graph/node/model-source.ts';
import { sum } from '../../../../numbers.ts';
import type { OptionName, Values } from '../../options/table.ts';
import { modelFolder } from '../../shared/model-folder.ts';
import { bytes } from '../../shared/progress.ts';
import type { Surroundings } from '../../shared/subcommand.ts';
import { beginReport } from './progress-report.ts';

export const UNET = [
  'model',
  'precision',
  'batch',
  'families',
  'repetitions',
  'launches',
  'json',
] as const satisfies readonly OptionName[];

export type UnetSettings = Values<(typeof UNET)[number]>;

/** The batch size if none is given. */
const BATCH = 128;

/** Formats where the time of a batch goes: a line per kernel, or per launch. */
function sharesText({ launches }: ModelTiming, eachLaunch: boolean): string {
  const times = launches.map(({ ms }) => ms);
  const names = launches.map(({ name }, i) => (eachLaunch ? `${i} ${name}` : name));
  const shares = kernelShares(names, times);
  const inOrder = eachLaunch ? names.map((name) => shares.find((one) => one.name === name)!) : shares;
  return inOrder.map((share) => `${shareLine(share)}\n`).join('');
}

/** Formats the sums of a timing; `views` is the number of noised images in a batch. */
export function totalsText(
  { network, launches, stream, activationBytes, weightBytes, flops }: ModelTiming,
  views: number,
): string {
  const { ms, quartiles, firstMs } = network;
  const [low, high] = quartiles.map(millisecondsText);
  const alone = sum(launches.map((launch) => launch.ms));
  const { batches, batchMs, occupancy } = stream;
  return `
whole network ${millisecondsText(ms)} ms (quartiles ${low}-${high}) = ${((1000 * ms) / views).toFixed(0)} us per evaluation of the network, ${(flops / ms / 1e6).toFixed(1)} GFLOP/s; first run ${(firstMs / 1000).toFixed(1)} s
sum of ${launches.length} launches alone ${millisecondsText(alone)} ms; whole / sum = ${(ms / alone).toFixed(3)}
stream of ${batches} batches, two in flight: ${millisecondsText(batchMs)} ms per batch, device idle ${occupancy ? `${(100 * occupancy.idleShare).toFixed(1)} % of the time` : 'for an unknown share of the time (it has no timestamps)'}
activations ${bytes(activationBytes)}, weights ${bytes(weightBytes)}
`;
}

/** Times a model's network and prints where its time goes. */
export async function benchUnet(settings: UnetSettings, surroundings: Surroundings): Promise<number> {
  const { model: path, precision, batch: views = BATCH, families, repetitions, json } = settings;
  if (families && families.length > 1)
    throw new UsageError(`--family: expected one family, got ${families.join(',')}`);
  const files = await modelFiles(await modelFolder(path));
  const device = await surroundings.openDevice(families ? { family: families[0]! } : {});
  try {
    const { description, family } = device.capabilities;
    const head = { bench: 'unet', device: description, families: [family], repetitions };
    const report = beginReport(surroundings, json, head);
    const model = await loadModel(files, { batchSize: views, precision });
    const half = model.evaluation.precision === 'f16';
    const name = `${model.evaluation.name}${half ? ' in f16' : ''}`;
    const timing = await timeModel(device, model, { views, repetitions }).finally(model.close);
    const { network, flops, launches, stream } = timing;
    const kernels = kernelShares(
      launches.map((launch) => launch.name),
      launches.map(({ ms }) => ms),
    );
    const whole = { name: `${name} batch ${views}`, family, ...network, gflops: flops / network.ms / 1e6 };
    await report.add(
      [{ ...whole, kernels, stream } as typeof whole],
      `${sharesText(timing, settings.launches)}
${description}, family ${family}, ${name}, batch ${views}${totalsText(timing, views)}`,
    );
    const warning = disturbanceText([whole]);
    if (warning !== undefined) surroundings.reporter.log('warn', warning);
    return 0;
  } finally {
    device.close();
  }
}

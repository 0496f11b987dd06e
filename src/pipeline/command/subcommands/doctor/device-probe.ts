// A program that `doctor` runs in a process of its own, because a driver may crash it. It lists the devices, opens the one
// that its argument chooses, and prints what it found as JSON on standard output. Drivers print to standard error.

import { type DeviceSummary, listDevices, openDevice } from '../../../../kernels/device/device.ts';

/** What the probe prints. */
export interface ProbeResult {
  readonly devices: readonly DeviceSummary[];
  /** The name of the device that opened. */
  readonly opened?: string;
  /** Why no device opened. */
  readonly problem?: string;
}

async function probe(chosen: string | undefined): Promise<ProbeResult> {
  let devices: readonly DeviceSummary[] = [];
  try {
    devices = await listDevices();
    const device = await openDevice(chosen === undefined ? {} : { adapter: chosen });
    return { devices, opened: device.name };
  } catch (error) {
    return { devices, problem: error instanceof Error ? error.message : String(error) };
  }
}

process.stdout.write(`\n${JSON.stringify(await probe(process.argv[2]))}\n`, () => process.exit(0));

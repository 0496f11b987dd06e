// The command line of `npm run bench -- device`, which is also the entry point of the kit's bundle (see pack.ts).

const HELP = `bench device [options]

  --mode <names>      what to do: support, test, perf, work (all of them)
  --torch <python>    also time the same shapes in PyTorch, with this Python
  --out <file>        file of the results (bench/results/<device>.json)
  --budget <seconds>  how long the whole run may take (450)
  --root <folder>     the folder that holds weights/ and bench/device.py (the current one, or DIFFCLASS_BENCH_ROOT)
  --resume            continue after the steps that are in the results file
  --pack <folder>     instead, make a kit that runs on a machine with nothing on it
  --search            instead, search for the fastest tiles of the kernels on matrix units
  --probe             instead, say why there is no device`;

/** Runs what the command line asks for. `prefix` are the arguments that the caller has already removed from it. */
export async function command(prefix: readonly string[] = []): Promise<void> {
  const { argv } = process;
  if (argv.includes('--help')) return console.log(HELP);
  if (argv.includes('--pack')) return (await import('./pack.ts')).main();
  if (argv.includes('--probe')) return (await import('./probe.ts')).main();
  if (!argv.includes('--search')) return (await import('./main.ts')).main(prefix);
  await (await import('../matrix-search.ts')).main(argv.slice(2));
  process.exit(); // a candidate that timed out may still wait for the device
}

// The command line of `npm run bench -- device`, which is also the entry point of the kit's bundle (see pack.ts).

const HELP = `bench device [options]

  --mode <names>      what to do: support, test, perf, work (all of them)
  --torch <python>    also time the same shapes in PyTorch, with this Python
  --out <file>        file of the results (bench/results/<device>.json)
  --budget <seconds>  how long the whole run may take (450)
  --precision <names> how whole networks store activations: f16, f32 (both on a GPU with f16; else f32)
  --root <folder>     the folder that holds weights/ and bench/device.py (the current one, or DIFFCLASS_BENCH_ROOT)
  --resume            continue after the steps that are in the results file
  --pack <folder>     instead, make a kit that runs on a machine with nothing on it
  --search            instead, time every tile that the kernels of large cases can have
  --probe             instead, say why there is no device`;

/** Runs what the command line asks for. `prefix` are the arguments that the caller has already removed from it. */
export async function command(prefix: readonly string[] = []): Promise<void> {
  const { argv } = process;
  if (argv.includes('--help')) return console.log(HELP);
  if (argv.includes('--pack')) return (await import('./pack.ts')).main();
  if (argv.includes('--probe')) return (await import('./probe.ts')).main();
  // The child process of a run gets the same command line.
  const search = argv.indexOf('--search');
  if (search >= 0) argv.splice(search, 1, '--mode', 'search');
  return (await import('./main.ts')).main(prefix);
}

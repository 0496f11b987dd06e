// The command line of `npm run bench -- device`, which is also the entry point of the kit's bundle (see pack.ts).

/** Runs what the command line asks for. `prefix` are the arguments that the caller has already removed from it. */
export async function command(prefix: readonly string[] = []): Promise<void> {
  const { argv } = process;
  if (argv.includes('--pack')) return (await import('./pack.ts')).main();
  if (argv.includes('--probe')) return (await import('./probe.ts')).main();
  if (!argv.includes('--search')) return (await import('./main.ts')).main(prefix);
  await (await import('../matrix-search.ts')).main(argv.slice(2));
  process.exit(); // a candidate that timed out may still wait for the device
}

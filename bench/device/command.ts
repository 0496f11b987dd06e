// `npm run bench -- device`, and entry point of the kit's bundle (see pack.ts).

/** Does what the command line asks for. `prefix` are arguments that the caller took from the command line before. */
export async function command(prefix: readonly string[] = []): Promise<void> {
  const { argv } = process;
  if (argv.includes('--pack')) return (await import('./pack.ts')).main();
  if (argv.includes('--probe')) return (await import('./probe.ts')).main();
  if (!argv.includes('--search')) return (await import('./main.ts')).main(prefix);
  await (await import('../matrix-search.ts')).main(argv.slice(2));
  process.exit(); // a candidate that was given up on may still wait for the device
}

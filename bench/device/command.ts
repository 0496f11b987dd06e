// `npm run bench -- device`, and entry point of the kit's bundle (see pack.ts).

const { argv } = process;
if (argv.includes('--pack')) await (await import('./pack.ts')).main();
else if (argv.includes('--probe')) await (await import('./probe.ts')).main();
else if (argv.includes('--search')) {
  await (await import('../matrix-search.ts')).main(argv.slice(2));
  process.exit(); // what was given up on may still wait for the device
} else await (await import('./main.ts')).main();

// `npm run bench -- device`, and entry point of the kit's bundle (see pack.ts).

const { argv } = process;
if (argv.includes('--pack')) await (await import('./pack.ts')).main();
else if (argv.includes('--probe')) await (await import('./probe.ts')).main();
else await (await import('./main.ts')).main();

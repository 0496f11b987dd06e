// `npm run bench -- NAME [options]` runs one benchmark. Each benchmark has its own file, which answers one question.

interface Benchmark {
  readonly question: string;
  readonly run: () => Promise<unknown>;
}

/** Returns the run of a benchmark that the package has too, as `diffclass-stream bench NAME`. */
const packaged = (name: string) => async () => {
  const { main } = await import('../src/pipeline/command/main.ts');
  const { describeModel, openModel } = await import('../src/graph/node/open-model.ts');
  const { silentDriver } = await import('../src/pipeline/command/shared/driver-messages.ts');
  const argv = ['bench', name, ...process.argv.slice(2)];
  // The process is ended explicitly, because the threads of a driver would keep it alive.
  process.exit(await main(argv, { openModel, describe: describeModel, silentDriver }));
};

/** All benchmarks; the first one is the default. */
const BENCHMARKS: Readonly<Record<string, Benchmark>> = {
  kernels: {
    question: 'How fast is every kernel on this device, and what share of its peak is that?',
    run: packaged('kernels'),
  },
  compare: {
    question: 'What is significantly slower or faster in the second of two reports that --json wrote?',
    run: packaged('compare'),
  },
  unet: {
    question:
      'What does one evaluation of a model cost, where does the time go, and how long is the device idle?',
    run: packaged('unet'),
  },
  device: {
    question:
      'What can this device do, are its results right, and how fast is it? One command that takes less than 8 minutes.',
    run: () => import('./device/command.ts').then(({ command }) => command(['device'])),
  },
  backward: {
    question: 'How long do the gradients of a convolution take, compared with the convolution itself?',
    run: () => import('./backward.ts'),
  },
  tune: {
    question:
      'How much faster is a network with tiles that were searched for here than with the shipped ones?',
    run: () => import('./tune.ts'),
  },
  gradient: {
    question: 'What does a gradient cost compared with its evaluation?',
    run: () => import('./gradient.ts'),
  },
  vaeencoder: {
    question: "What does a latent model's encoding of one image cost?",
    run: () => import('./vae-encoder.ts'),
  },
  sharing: {
    question: 'How much is saved if candidates share an image, level and noise?',
    run: () => import('./sharing.ts'),
  },
  fullsize: {
    question:
      "Does a network of Stable Diffusion's full size run here, in how much memory, and are its results right?",
    run: () => import('./full-size.ts'),
  },
  stopping: {
    question: 'How many evaluations do the strategies need until an image is decided?',
    run: () => import('./stopping.ts'),
  },
  'end-to-end': {
    question: 'How many images per second does the whole pipeline classify, and how many of them correctly?',
    run: () => import('./end-to-end.ts').then(({ main }) => main()),
  },
  photos: {
    question: 'How many photos of 12 megapixels per second does the whole pipeline classify?',
    run: () => import('./photos.ts'),
  },
  reference: {
    question: 'How much faster is this library than the published algorithm in PyTorch?',
    run: () => import('./reference.ts').then(({ main }) => main()),
  },
  peers: {
    question: 'How fast is this library compared with other WebGPU libraries, onnxruntime and PyTorch?',
    run: () => import('./peers/main.ts').then(({ main }) => main()),
  },
  robust: {
    question: 'How robust are the shipped models?',
    run: () => import('./robust.ts'),
  },
  earlystop: {
    question: 'How do shared noise and early stopping change robust accuracy?',
    run: () => import('./early-stop.ts'),
  },
  familiar: {
    question:
      'Which images are unlike those that a model was trained on, and how often is that a false alarm?',
    run: () => import('./familiar.ts'),
  },
  'many-users': {
    question: 'Do many users of one classifier get the throughput and the results of a single stream?',
    run: () => import('./many-users.ts'),
  },
  results: {
    question: 'Writes docs/results.md, the page of all measured figures.',
    run: () => import('./results.ts').then(({ main }) => main()),
  },
  'operator-memory': {
    question: 'Does memory stay flat with ordinary RxJS operators in front of classify?',
    run: () => import('./operator-memory.ts'),
  },
  memory: {
    question: 'Does memory stay flat, however many paths the command reads?',
    run: () => import('./memory.ts'),
  },
};

/** Lists the benchmarks with their questions. */
function listText(): string {
  const width = Math.max(...Object.keys(BENCHMARKS).map(({ length }) => length));
  const lines = Object.entries(BENCHMARKS).map(
    ([name, { question }]) => `  ${name.padEnd(width)}  ${question}`,
  );
  return `npm run bench -- NAME [options]; --help after a name lists its options\n\n${lines.join('\n')}`;
}

// A reader that closes the pipe loses nothing: with --json the run goes on for the file, without it the run ends.
process.stdout.on('error', ({ code }: NodeJS.ErrnoException) => {
  if (code === 'EPIPE' && !process.argv.some((text) => text.startsWith('--json'))) process.exit(0);
});

const [, , first = 'kernels'] = process.argv;
const isNamed = !first.startsWith('-');
const isListed = ['--help', '--list'].includes(first);
const benchmark = BENCHMARKS[isNamed ? first : 'kernels'];
if (isNamed) process.argv.splice(2, 1); // a benchmark reads its own options from argv
if (isListed) console.log(listText());
else if (benchmark) await benchmark.run();
else {
  console.error(`bench: expected one of ${Object.keys(BENCHMARKS).join(', ')}, got "${first}"`);
  process.exitCode = 2;
}

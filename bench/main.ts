// `npm run bench -- SUBCOMMAND [options]`: one question a file; the subcommand says which.

const QUESTIONS: Readonly<Record<string, () => Promise<unknown>>> = {
  // How fast is every kernel on this device, and what share of its peak is that?
  kernels: () => import('./kernels.ts'),
  // What can this device do, are its results right, and how fast is it at everything? One command, under 8 minutes.
  device: () => import('./device/command.ts').then(({ command }) => command(['device'])),
  // How long does a convolution's way back take, next to the convolution itself?
  backward: () => import('./backward.ts'),
  // What does one evaluation of a model cost, and where does the time go?
  unet: () => import('./unet.ts'),
  // What does a gradient cost next to the evaluation it is of?
  gradient: () => import('./gradient.ts'),
  // What does encoding one image cost a latent model?
  vaeencoder: () => import('./vae-encoder.ts'),
  // What is saved where candidates share an image, level and noise?
  sharing: () => import('./sharing.ts'),
  // Does a network of Stable Diffusion's full size run, in how much memory, and right?
  fullsize: () => import('./full-size.ts'),
  // How many evaluations does deciding need?
  stopping: () => import('./stopping.ts'),
  // How many images a second, and how many of them right?
  'end-to-end': () => import('./end-to-end.ts').then(({ main }) => main()),
  // How much faster than the published algorithm in PyTorch?
  reference: () => import('./reference.ts').then(({ main }) => main()),
  // How robust are the shipped models?
  robust: () => import('./robust.ts'),
  // What do shared noise and early stopping do to robust accuracy?
  earlystop: () => import('./early-stop.ts'),
  // Which images lie outside what a model was trained on, and how often is that a false alarm?
  familiar: () => import('./familiar.ts'),
  // Do many users of one classifier get the throughput and the results of a single stream?
  'many-users': () => import('./many-users.ts'),
  // What has been measured so far? Writes docs/results.md.
  results: () => import('./results.ts').then(({ main }) => main()),
  // Does memory stay flat with ordinary RxJS operators in front of classify?
  'operator-memory': () => import('./operator-memory.ts'),
  // Does memory stay flat however many paths come in?
  memory: () => import('./memory.ts'),
};

const [, , name] = process.argv;
const given = name !== undefined && !name.startsWith('-');
if (given) process.argv.splice(2, 1); // the question reads its own options from argv
const ask = QUESTIONS[given ? name : 'kernels'];
if (ask) await ask();
else {
  console.error(`bench: no question ${name}; there are ${Object.keys(QUESTIONS).join(', ')}`);
  process.exitCode = 2;
}

// `npm run bench -- NAME [options]` runs one benchmark. Each benchmark has its own file, which answers one question.

const BENCHMARKS: Readonly<Record<string, () => Promise<unknown>>> = {
  // How fast is every kernel on this device, and what share of its peak is that?
  kernels: () => import('./kernels.ts'),
  // What can this device do, are its results right, and how fast is it? One command that takes less than 8 minutes.
  device: () => import('./device/command.ts').then(({ command }) => command(['device'])),
  // How long do the gradients of a convolution take, compared with the convolution itself?
  backward: () => import('./backward.ts'),
  // What does one evaluation of a model cost, and where does the time go?
  unet: () => import('./unet.ts'),
  // What does a gradient cost compared with its evaluation?
  gradient: () => import('./gradient.ts'),
  // What does a latent model's encoding of one image cost?
  vaeencoder: () => import('./vae-encoder.ts'),
  // How much is saved if candidates share an image, level and noise?
  sharing: () => import('./sharing.ts'),
  // Does a network of Stable Diffusion's full size run here, in how much memory, and are its results right?
  fullsize: () => import('./full-size.ts'),
  // How many evaluations do the strategies need until an image is decided?
  stopping: () => import('./stopping.ts'),
  // How many images per second does the whole pipeline classify, and how many of them correctly?
  'end-to-end': () => import('./end-to-end.ts').then(({ main }) => main()),
  // How much faster is this library than the published algorithm in PyTorch?
  reference: () => import('./reference.ts').then(({ main }) => main()),
  // How fast is this library compared with other WebGPU libraries, onnxruntime and PyTorch?
  peers: () => import('./peers/main.ts').then(({ main }) => main()),
  // How robust are the shipped models?
  robust: () => import('./robust.ts'),
  // How do shared noise and early stopping change robust accuracy?
  earlystop: () => import('./early-stop.ts'),
  // Which images are unlike those that a model was trained on, and how often is that a false alarm?
  familiar: () => import('./familiar.ts'),
  // Do many users of one classifier get the throughput and the results of a single stream?
  'many-users': () => import('./many-users.ts'),
  // Writes docs/results.md, the page of all measured figures.
  results: () => import('./results.ts').then(({ main }) => main()),
  // Does memory stay flat with ordinary RxJS operators in front of classify?
  'operator-memory': () => import('./operator-memory.ts'),
  // Does memory stay flat, however many paths the command reads?
  memory: () => import('./memory.ts'),
};

const [, , name] = process.argv;
const isNamed = name !== undefined && !name.startsWith('-');
if (isNamed) process.argv.splice(2, 1); // a benchmark reads its own options from argv
const run = BENCHMARKS[isNamed ? name : 'kernels'];
if (run) await run();
else {
  console.error(`bench: expected one of ${Object.keys(BENCHMARKS).join(', ')}, got "${name}"`);
  process.exitCode = 2;
}

// Tests that the packed package compiles, bundles and runs in an empty project, as its users use it.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { compiled, manifest, newConsumer, ROOT, runIn } from './consumer.ts';

const consumer = newConsumer('@types/node', '@webgpu/types', 'undici-types');
afterAll(() => consumer.remove());

/** A program with the imports that the contract promises. */
const CONTRACT = `
import { findImages, imageFrom, loadImages, openClassifier, sequential } from 'diffclass-stream';
import { classify, mapPulled, pulled } from 'diffclass-stream/operators';
import { diffusionClassifier } from 'diffclass-stream/attacks';
import { benchCase, defineKernel, openDevice, time, timeCase } from 'diffclass-stream/kernels';

export async function use(buffer: Uint8Array): Promise<readonly string[]> {
  const classifier = await openClassifier('fashion-mnist-multi-head');
  const one = await classifier.classify('photo.png');
  const two = await classifier.classify(await imageFrom(buffer), {
    strategy: sequential({ confidence: 0.999 }), budget: 100, seed: 7, topK: 3,
  });
  const labels: string[] = [one.label, two.label];
  for await (const result of classifier.classifyAll(loadImages(findImages(['photos']), classifier.inputShape)))
    labels.push('error' in result ? result.error.code : result.label);
  pulled(loadImages(findImages(['photos']), classifier.inputShape))
    .pipe(mapPulled((item) => item), classify(classifier))
    .subscribe((result) => labels.push(result.path));
  const defended = diffusionClassifier(classifier);
  labels.push(String(defended.classes), typeof defineKernel, typeof openDevice, typeof time);
  await classifier.close();
  const device = await openDevice();
  const { ms, gflops } = await timeCase(device, benchCase('conv2d', [128, 8, 32, 32], { channels: 256 }), 5);
  device.close();
  labels.push([ms, gflops].join());
  return labels;
}
`;

describe('types', () => {
  const projects = {
    'lib ES2023 and DOM': { lib: ['ES2023', 'DOM', 'DOM.Iterable', 'DOM.AsyncIterable'], types: [] },
    '@types/node': { lib: ['ES2023'], types: ['node'] },
  };
  it.each(Object.entries(projects))('compile in a strict project with %s', async (_, options) => {
    consumer.write('use.ts', CONTRACT);
    expect(await compiled(consumer.folder, options, ['use.ts'])).toBe('');
  });

  it('compile with lib ES2023 alone, except the operators, because the types of rxjs need setTimeout', async () => {
    const code = CONTRACT.replace(/import .* from 'diffclass-stream\/operators';/, '').replace(
      / {2}pulled[\s\S]*?\);\n/,
      '',
    );
    expect(code).not.toContain('pulled');
    consumer.write('alone.ts', code);
    expect(await compiled(consumer.folder, { lib: ['ES2023'], types: [] }, ['alone.ts'])).toBe('');
  });

  it("of WebGPU are the host's own if it has them", async () => {
    consumer.write(
      'host.ts',
      `import { openDevice } from 'diffclass-stream/kernels';
import { openClassifier } from 'diffclass-stream';
export const use = async (device: GPUDevice, signal: AbortSignal) => {
  const limits: GPUSupportedLimits = (await openDevice({ device })).gpu.limits;
  const classifier = await openClassifier('fashion-mnist', { device });
  return [limits, await classifier.classify('photo.png', { signal })];
};
`,
    );
    // @webgpu/types does not compile without lib DOM.
    const options = { lib: ['ES2023'], types: ['node', '@webgpu/types'], skipLibCheck: true };
    expect(await compiled(consumer.folder, options, ['host.ts'])).toBe('');
  });
});

/** Returns the code of every \`@example\` in the sources of the package. */
function examples(): { readonly name: string; readonly code: string }[] {
  const found: { name: string; code: string }[] = [];
  for (const file of consumer.files.filter((path) => path.startsWith('src/') && path.endsWith('.ts'))) {
    const text = readFileSync(join(ROOT, file), 'utf8');
    for (const [, comment] of text.matchAll(/\/\*\*((?:(?!\*\/)[\s\S])*)\*\//g))
      for (const [, example] of comment!.matchAll(/@example\n([\s\S]*?)(?=\n\s*\* @|$)/g))
        found.push({ name: `${file} ${found.length}`, code: example!.replaceAll(/^\s*\* ?/gm, '') });
  }
  return found;
}

/** Returns the TypeScript blocks of a document. */
const blocksOf = (document: string) =>
  [...readFileSync(join(ROOT, document), 'utf8').matchAll(/\n```ts\n([\s\S]*?)\n```/g)].map(
    ([, code], i) => ({
      name: `${document} ${i}`,
      code: code!,
    }),
  );

describe('documentation', () => {
  it('has examples in docstrings and the README that all compile', async () => {
    const all = [...examples(), ...blocksOf('README.md')];
    expect(all.length).toBeGreaterThan(8);
    const files = all.map(({ name, code }, i) => {
      const file = `example-${i}.ts`;
      consumer.write(file, `// ${name}\n${code}\nexport {};\n`);
      return file;
    });
    expect(await compiled(consumer.folder, { lib: ['ES2023'], types: ['node'] }, files)).toBe('');
  });
});

const PROGRAM = `
import { openClassifier } from 'diffclass-stream';
const classifier = await openClassifier(process.argv[2] ?? 'fashion-mnist-multi-head');
const { label, evaluations } = await classifier.classify('photos/0000-ankle-boot.png');
console.log(JSON.stringify({ label, evaluations }));
await classifier.close();
`;
const MODEL = 'node_modules/diffclass-stream/weights/fashion-mnist-multi-head';
const ANSWER = '{"label":"Ankle boot","evaluations":10}\n';

describe('programs', () => {
  it('an ES module', async () => {
    consumer.write('program.mjs', PROGRAM);
    expect(await runIn(consumer.folder, process.execPath, ['program.mjs'])).toMatchObject({
      status: 0,
      out: ANSWER,
    });
  });

  it('CommonJS, with require of an ES module', async () => {
    const body = PROGRAM.replace(/import .*\n/, '');
    consumer.write(
      'program.cjs',
      `const { openClassifier } = require('diffclass-stream');\n(async () => {${body}})();\n`,
    );
    expect(await runIn(consumer.folder, process.execPath, ['program.cjs'])).toMatchObject({
      status: 0,
      out: ANSWER,
    });
  });

  it('bundled by esbuild, without the packages with native code', async () => {
    consumer.write('program.mjs', PROGRAM);
    const { build } = await import('esbuild');
    await build({
      entryPoints: [join(consumer.folder, 'program.mjs')],
      outfile: join(consumer.folder, 'bundle.mjs'),
      bundle: true,
      format: 'esm',
      platform: 'node',
      external: ['webgpu', 'sharp', 'koffi'],
      logLevel: 'silent',
    });
    // A bundle does not contain the shipped models, so the program gets the path of one.
    expect(await runIn(consumer.folder, process.execPath, ['bundle.mjs', MODEL])).toMatchObject({
      status: 0,
      out: ANSWER,
    });
    const { status, err } = await runIn(consumer.folder, process.execPath, ['bundle.mjs']);
    expect([status, err]).toEqual([1, expect.stringContaining('bundled')]);
  });

  it('bundled by vite for a server', async () => {
    consumer.write('program.mjs', PROGRAM);
    const { build } = await import('vite');
    await build({
      root: consumer.folder,
      logLevel: 'silent',
      ssr: { noExternal: ['diffclass-stream'], external: ['webgpu', 'sharp', 'koffi'] },
      build: { ssr: join(consumer.folder, 'program.mjs'), outDir: join(consumer.folder, 'vite') },
    });
    expect(await runIn(consumer.folder, process.execPath, ['vite/program.js', MODEL])).toMatchObject({
      status: 0,
      out: ANSWER,
    });
  });

  it('the command', async () => {
    const cli = 'node_modules/diffclass-stream/dist/pipeline/command/cli.js';
    const ended = await runIn(consumer.folder, process.execPath, [cli, 'photos/0000-ankle-boot.png']);
    expect(JSON.parse(ended.out)).toMatchObject({ label: 'Ankle boot' });
    expect(ended).toMatchObject({ status: 0 });
  });
});

describe('benchmarks', () => {
  const CLI = 'node_modules/diffclass-stream/dist/pipeline/command/cli.js';
  const bench = (...argv: readonly string[]) =>
    runIn(consumer.folder, process.execPath, [CLI, 'bench', ...argv]);
  const shape = ['--op', 'linear', '--shape', '64x32', '--channels', '16'];

  it('of kernels print a table and write a report, which can be compared with another', {
    timeout: 300_000,
  }, async () => {
    const ended = await bench(...shape, '--repetitions', '5', '--json', 'one.json');
    expect(ended.status).toBe(0);
    expect(ended.out).toMatch(/\nlinear 32->16 \[32,64,1,1\] +\d/);
    const report = JSON.parse(readFileSync(join(consumer.folder, 'one.json'), 'utf8'));
    expect(report).toMatchObject({ bench: 'kernels', repetitions: 5 });
    expect(report.results[0].samples).toHaveLength(5);
    const { status, out } = await bench('compare', 'one.json', 'one.json', '--fail-on', 'different');
    expect(status).toBe(0);
    expect(out).toContain('1 result compared: 0 slower, 0 faster, 1 without a significant difference');
  });

  it('of kernels whose reader goes away leave a whole report, and end quietly', {
    timeout: 300_000,
  }, async () => {
    const cases = ['--op', 'linear', '--match', '[64,64,1,1]'];
    const argv = [CLI, 'bench', ...cases, '--repetitions', '1', '--json', 'closed.json'];
    const command = `"${process.execPath}" ${argv.map((text) => `'${text}'`).join(' ')} | head -n 1; exit "\${PIPESTATUS[0]}"`;
    const { status, err } = await runIn(consumer.folder, 'bash', ['-c', command]);
    expect([status, err.replace(/^.*other processes used.*\n/, '')]).toEqual([0, '']);
    const { results } = JSON.parse(readFileSync(join(consumer.folder, 'closed.json'), 'utf8'));
    expect(results).toHaveLength(2);
  });

  it('of a model say where its time goes and how long the device is idle', { timeout: 300_000 }, async () => {
    const small = ['--model', 'fashion-mnist-multi-head', '--batch', '2', '--repetitions', '1'];
    const { status, out } = await bench('unet', ...small, '--json', 'unet.json');
    expect(status).toBe(0);
    expect(out).toMatch(/sum of \d+ launches alone [\d.]+ ms/);
    expect(out).toMatch(/stream of \d+ batches, two in flight: [\d.]+ ms per batch, device idle/);
    const { results } = JSON.parse(readFileSync(join(consumer.folder, 'unet.json'), 'utf8'));
    expect(results[0].kernels.length).toBeGreaterThan(5);
    const { idleShare } = results[0].stream.occupancy;
    expect(idleShare).toBeGreaterThanOrEqual(0);
    expect(idleShare).toBeLessThan(1);
  });

  it('are available in code by the sub-path /kernels', { timeout: 300_000 }, async () => {
    consumer.write(
      'kernels.mjs',
      `import { benchCase, launchesOf, openDevice, time, timeCase } from 'diffclass-stream/kernels';
const device = await openDevice();
const one = benchCase('add', [16, 4, 8, 8]);
const { launches, destroy } = launchesOf(device, one);
const timing = await time(device, launches, 3);
destroy();
const result = await timeCase(device, one, 3);
console.log(JSON.stringify([timing.samples.length, result.name, result.ms > 0]));
process.exit();
`,
    );
    const { status, out } = await runIn(consumer.folder, process.execPath, ['kernels.mjs']);
    expect([status, out]).toEqual([0, '[3,"add [16,4,8,8]",true]\n']);
  });
});

describe('weight', () => {
  it('is at most 12 production dependencies and 10 MB packed', () => {
    const { dependencies, optionalDependencies = {}, peerDependencies } = manifest;
    expect(
      Object.keys({ ...dependencies, ...optionalDependencies, ...peerDependencies }).length,
    ).toBeLessThanOrEqual(12);
    expect(consumer.size).toBeLessThanOrEqual(10e6);
  });
});

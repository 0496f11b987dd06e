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
import { defineKernel, openDevice, time } from 'diffclass-stream/kernels';

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

describe('weight', () => {
  it('is at most 12 production dependencies and 10 MB packed', () => {
    const { dependencies, optionalDependencies = {}, peerDependencies } = manifest;
    expect(
      Object.keys({ ...dependencies, ...optionalDependencies, ...peerDependencies }).length,
    ).toBeLessThanOrEqual(12);
    expect(consumer.size).toBeLessThanOrEqual(10e6);
  });
});

// Writes the random EDM models of test/golden/edm.py as folders: generates their weights, noises and images again.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeSafetensors } from '../../src/graph/node/write-safetensors.ts';
import { encodePng } from '../../src/pipeline/node/png.ts';

export interface EdmNetworkGolden {
  readonly config: Readonly<Record<string, unknown>>;
  /** Names and shapes of the state dict. */
  readonly tensors: Readonly<Record<string, readonly number[]>>;
}

export interface EdmGolden extends EdmNetworkGolden {
  readonly image: readonly number[];
  /** Errors by class and sigma. */
  readonly errors: readonly (readonly number[])[];
  readonly logits: readonly number[];
  readonly posterior: readonly number[];
  /** Gradients of errors with respect to the image; `sigma` is an index. */
  readonly gradients: readonly {
    readonly sigma: number;
    readonly label: number;
    readonly values: readonly number[];
  }[];
  /** Errors of the zero label, by sigma. */
  readonly nobody: readonly number[];
  readonly uncond?: EdmNetworkGolden & { readonly errors: readonly number[] };
}

export const edmGolden = (name: string): EdmGolden =>
  JSON.parse(readFileSync(join(import.meta.dirname, '..', 'golden', 'edm', `${name}.json`), 'utf8'));

/** Sigmas of RDC's grid, in the order of `errors`. */
export const SIGMAS = Array.from({ length: 125 }, (_, k) => 1e-4 + (k * (3 - 1e-4)) / 125);
export const SIDE = 8;

/** Returns `count` random numbers in [0, 1); the name is the seed. */
function uniform(name: string, count: number): Float64Array {
  let state = 2166136261;
  for (const byte of Buffer.from(name)) state = Math.imul(state ^ byte, 16777619) >>> 0;
  return Float64Array.from({ length: count }, () => {
    state = (Math.imul(1664525, state) + 1013904223) >>> 0;
    return state / 2 ** 32;
  });
}

const product = (shape: readonly number[]) => shape.reduce((n, side) => n * side, 1);

/** Returns a tensor of a network; `prefix` and the tensor's name are the seed. */
function tensor(prefix: string, name: string, shape: readonly number[]): Float32Array {
  if (name.endsWith('resample_filter')) return new Float32Array(4).fill(0.25);
  const spread = shape.length > 1 ? Math.sqrt(3 / product(shape.slice(1))) : 0.3;
  const middle = shape.length === 1 && name.endsWith('weight') ? 1 : 0;
  return Float32Array.from(uniform(prefix + name, product(shape)), (u) => middle + spread * (2 * u - 1));
}

async function writeNetwork(folder: string, { config, tensors }: EdmNetworkGolden, prefix: string) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  const all = Object.entries(tensors).map(
    ([name, shape]) => [name, { dtype: 'F32', shape, data: tensor(prefix, name, shape) }] as const,
  );
  await writeSafetensors(join(folder, 'model.safetensors'), all);
}

/** Writes the folder of a golden model, with the network in `uncond/` if it has one. */
export async function writeEdmFolder(folder: string, golden: EdmGolden): Promise<string> {
  await writeNetwork(folder, golden, '');
  if (golden.uncond) await writeNetwork(join(folder, 'uncond'), golden.uncond, 'uncond ');
  return folder;
}

/** Returns the image of a golden model, [c, h, w] in [-1, 1]. */
export const imageOf = ({ image }: EdmGolden): Float32Array =>
  Float32Array.from({ length: image.length }, (_, i) => {
    const pixels = SIDE * SIDE;
    return image[(i % pixels) * 3 + Math.floor(i / pixels)]! / 127.5 - 1;
  });

export function writeImage(path: string, { image }: EdmGolden): string {
  writeFileSync(path, encodePng({ width: SIDE, height: SIDE, channels: 3, data: Uint8Array.from(image) }));
  return path;
}

/** Writes the noises of the sigmas in ascending order. */
export async function writeNoise(path: string): Promise<string> {
  const shape = [SIGMAS.length, 3, SIDE, SIDE];
  const noise = uniform('noise', product(shape));
  const data = Float32Array.from(noise, (u) => (2 * u - 1) * Math.sqrt(3));
  await writeSafetensors(path, [['noise', { dtype: 'F32', shape, data }]]);
  return path;
}

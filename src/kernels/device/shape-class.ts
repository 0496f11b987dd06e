// Classes of shapes, the keys of choices between tiles.

/** What the best tile depends on: shapes of one class share it. */
export interface ShapeClass {
  /** The kernel whose tile is chosen, such as `gemm.subgroup`. */
  readonly kernel: string;
  /** Element types of the operands, such as `f16` for weights in f16. */
  readonly types: string;
  /** Sizes by name, rounded up by `bucket`. */
  readonly sizes: Readonly<Record<string, number>>;
  /** Identifies the text of the kernel, so that a choice between older texts does not count. */
  readonly version?: string;
}

/** Tiles by the class of shapes that they are the best for. */
export interface Tiles {
  /** Returns the name of a tile, or undefined if the kernel's own rule decides. A kernel ignores a name that it lacks. */
  get(shape: ShapeClass): string | undefined;
}

/** Rounds a size up to a power of two or three quarters of one: 1, 2, 3, 4, 6, 8, 12, 16, 24, ... */
export function bucket(size: number): number {
  const power = 2 ** Math.ceil(Math.log2(Math.max(size, 1)));
  return power >= 4 && size <= 0.75 * power ? 0.75 * power : power;
}

/** Returns a text that identifies a class of shapes: `gemm.subgroup 1c9e4a0b f32 m64 k128 columns1024 batch1`. */
export const classKey = ({ kernel, version = '', types, sizes }: ShapeClass): string =>
  [kernel, version, types, ...Object.entries(sizes).map(([name, size]) => `${name}${size}`)].join(' ');

// The product of two matrices of low rank, by parts of its elements.

/** The factors up [rows, rank] and down [rank, columns] of a matrix [rows, columns], row by row, as f64. */
export interface Factors {
  /** A multiple of `STEP`. */
  readonly rank: number;
  readonly columns: number;
  readonly up: Float64Array;
  readonly down: Float64Array;
}

/** Rows of `down` that are added at a time, so that sums are loaded and stored less often. */
const STEP = 4;

/** Returns factors whose rank is filled up with zeros. */
export function factorsOf(
  up: Float32Array | Float64Array,
  down: Float32Array | Float64Array,
  rank: number,
): Factors {
  const [rows, columns] = [up.length / rank, down.length / rank];
  const filled = Math.ceil(rank / STEP) * STEP;
  const wide = new Float64Array(rows * filled);
  for (let r = 0; r < rows; r++) wide.set(up.subarray(r * rank, (r + 1) * rank), r * filled);
  const tall = new Float64Array(filled * columns);
  tall.set(down);
  return { rank: filled, columns, up: wide, down: tall };
}

/** Columns computed at a time: those of 128 rows of `down` then take 256 KiB, which the second-level cache holds. */
const COLUMNS = 256;

/**
 * Adds scale x up x down to `into`, which holds the matrix's elements from element `from` on, row by row. Sums are in f64
 * and in the order of the rank, so that they do not depend on the part.
 */
export function addProduct(factors: Factors, scale: number, into: Float64Array, from: number): void {
  const { columns } = factors;
  const end = from + into.length;
  // Whole rows are added together; the first and the last row may be cut.
  let at = from;
  while (at < end) {
    const row = Math.floor(at / columns);
    const column = at % columns;
    const rows = column === 0 ? Math.floor((end - at) / columns) : 0;
    const width = rows > 0 ? columns : Math.min(columns - column, end - at);
    const block = into.subarray(at - from, at - from + Math.max(1, rows) * width);
    for (let left = 0; left < width; left += COLUMNS)
      addBlock(factors, scale, block, {
        row,
        rows: Math.max(1, rows),
        stride: width,
        left,
        column: column + left,
        width: Math.min(COLUMNS, width - left),
      });
    at += Math.max(1, rows) * width;
  }
}

/** A block of the matrix: `row` and `column` are where it begins there, `left` where it begins in rows of `into`. */
interface Block {
  readonly row: number;
  readonly rows: number;
  readonly stride: number;
  readonly left: number;
  readonly column: number;
  readonly width: number;
}

/** Adds a block of the product: two rows at a time, which load the same part of `down`. */
function addBlock(factors: Factors, scale: number, into: Float64Array, block: Block): void {
  const { rank, columns, up, down } = factors;
  const { row, rows, stride, left, column, width } = block;
  for (let r = 0; r + 1 < rows; r += 2) {
    const u = (row + r) * rank;
    const a = r * stride + left;
    const b = a + stride;
    for (let k = 0; k < rank; k += STEP) {
      const u0 = scale * up[u + k]!;
      const u1 = scale * up[u + k + 1]!;
      const u2 = scale * up[u + k + 2]!;
      const u3 = scale * up[u + k + 3]!;
      const v0 = scale * up[u + rank + k]!;
      const v1 = scale * up[u + rank + k + 1]!;
      const v2 = scale * up[u + rank + k + 2]!;
      const v3 = scale * up[u + rank + k + 3]!;
      const d0 = k * columns + column;
      const d1 = d0 + columns;
      const d2 = d1 + columns;
      const d3 = d2 + columns;
      for (let c = 0; c < width; c++) {
        const x0 = down[d0 + c]!;
        const x1 = down[d1 + c]!;
        const x2 = down[d2 + c]!;
        const x3 = down[d3 + c]!;
        into[a + c] = into[a + c]! + u0 * x0 + u1 * x1 + u2 * x2 + u3 * x3;
        into[b + c] = into[b + c]! + v0 * x0 + v1 * x1 + v2 * x2 + v3 * x3;
      }
    }
  }
  if (rows % 2 === 1) addRow(factors, scale, into, block);
}

/** Adds the last row of a block, which has no partner; sums are in the same order as in `addBlock`. */
function addRow(
  { rank, columns, up, down }: Factors,
  scale: number,
  into: Float64Array,
  { row, rows, stride, left, column, width }: Block,
): void {
  const u = (row + rows - 1) * rank;
  const a = (rows - 1) * stride + left;
  for (let k = 0; k < rank; k++) {
    const factor = scale * up[u + k]!;
    const d = k * columns + column;
    for (let c = 0; c < width; c++) into[a + c] = into[a + c]! + factor * down[d + c]!;
  }
}

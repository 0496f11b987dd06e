// The product of two matrices of low rank, by parts of its elements.

/** The factors up [rows, rank] and down [rank, columns] of a matrix [rows, columns], row by row, as f64. */
export interface Factors {
  readonly rank: number;
  readonly columns: number;
  readonly up: Float64Array;
  readonly down: Float64Array;
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

/** Adds a block of the product. Four rows of `down` are added at a time, so that sums are loaded and stored less often. */
function addBlock(
  { rank, columns, up, down }: Factors,
  scale: number,
  into: Float64Array,
  { row, rows, stride, left, column, width }: Block,
): void {
  for (let r = 0; r < rows; r++) {
    const u = (row + r) * rank;
    const sums = into.subarray(r * stride + left, r * stride + left + width);
    let k = 0;
    for (; k + 4 <= rank; k += 4) {
      const [u0, u1, u2, u3] = [
        scale * up[u + k]!,
        scale * up[u + k + 1]!,
        scale * up[u + k + 2]!,
        scale * up[u + k + 3]!,
      ];
      const d0 = k * columns + column;
      const [d1, d2, d3] = [d0 + columns, d0 + 2 * columns, d0 + 3 * columns];
      for (let c = 0; c < width; c++)
        sums[c] =
          sums[c]! + u0 * down[d0 + c]! + u1 * down[d1 + c]! + u2 * down[d2 + c]! + u3 * down[d3 + c]!;
    }
    for (; k < rank; k++) {
      const u0 = scale * up[u + k]!;
      const d0 = k * columns + column;
      for (let c = 0; c < width; c++) sums[c] = sums[c]! + u0 * down[d0 + c]!;
    }
  }
}

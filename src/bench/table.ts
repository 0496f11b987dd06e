// Prints tables as they grow: the widths of their columns are fixed before the first row.

export interface Column {
  readonly title: string;
  /** The fewest characters of the column. */
  readonly width: number;
  /** Default: right, as for numbers. */
  readonly align?: 'left';
}

/** Returns a line of a table. A cell that is too long moves those after it. */
export const tableLine = (columns: readonly Column[], cells: readonly string[]): string =>
  columns
    .map(({ title, width, align }, i) => {
      const most = Math.max(title.length, width);
      return align === 'left' ? (cells[i] ?? '').padEnd(most) : (cells[i] ?? '').padStart(most);
    })
    .join('  ')
    .trimEnd();

/** Returns the line of titles of a table. */
export const tableTitles = (columns: readonly Column[]): string =>
  tableLine(
    columns,
    columns.map(({ title }) => title),
  );

/** Returns milliseconds with three decimals, or with four digits from 10 ms on. */
export const millisecondsText = (ms: number): string => (ms < 10 ? ms.toFixed(3) : ms.toPrecision(4));

/** Returns a share in [0, 1] in per cent. */
export const percentText = (share: number): string => `${(100 * share).toFixed(0)}%`;

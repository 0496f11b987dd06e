// Writes docs/results.md from the measured figures in bench/results/figures.json. The figures there name the
// commands that measure them again. After a new measurement, update the figure, the version and the machine
// in that file.
//
//   npm run bench -- results

import { readFileSync, writeFileSync } from 'node:fs';
import { z } from 'zod';
import { openBench } from './run.ts';

const FIGURES = new URL('results/figures.json', import.meta.url);
const PAGE = new URL('../docs/results.md', import.meta.url);

const figures = z.array(
  z.object({
    title: z.string(),
    /** The version of the program and the machine. */
    measured: z.string(),
    text: z.string(),
    columns: z.array(z.string()).min(1),
    rows: z.array(z.array(z.string())),
  }),
);

const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;

/**
 * Returns the page of results as Markdown.
 * @throws Error if a row does not have one cell per column.
 */
export function resultsPage(): string {
  const sections = figures.parse(JSON.parse(readFileSync(FIGURES, 'utf8')));
  const parts = sections.map(({ title, measured, text, columns, rows }) => {
    const misfit = rows.find((row) => row.length !== columns.length);
    if (misfit)
      throw new Error(
        `${title}: expected ${columns.length} cells per row, got ${misfit.length}: ${misfit.join(', ')}`,
      );
    const table = [line(columns), line(columns.map(() => '---')), ...rows.map(line)].join('\n');
    return `## ${title}\n\nMeasured: ${measured}.\n\n${text}\n\n${table}\n`;
  });
  return `# Results\n\nWritten by \`npm run bench -- results\` from \`bench/results/figures.json\`.\n\n${parts.join('\n')}`;
}

/** Writes docs/results.md. */
export function main(): void {
  openBench('results', {});
  writeFileSync(PAGE, resultsPage());
}

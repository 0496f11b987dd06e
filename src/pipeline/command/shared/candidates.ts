// Makes the candidates that a run chooses between, from names or from a table of prompts.

import { z } from 'zod';
import { UsageError } from '../../../errors.ts';
import type { Candidate } from '../../../graph/model.ts';
import type { ModelSummary } from '../../../graph/model-summary.ts';
import { tableRows } from './table-rows.ts';

/** Counts the letters to insert, delete or replace to turn one text into the other. */
export function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}

/** Returns the name with the smallest edit distance to a text, ignoring case. */
export function nearest(text: string, names: readonly string[]): string | undefined {
  const folded = text.toLowerCase();
  const ranked = names.map((name) => ({ name, distance: editDistance(folded, name.toLowerCase()) }));
  return ranked.sort((a, b) => a.distance - b.distance)[0]?.name;
}

/** Returns the number of the class of a name. @throws UsageError if there is none, or more than one. */
function classNumber(name: string, labels: readonly string[]): number {
  const numbersOf = (fits: (label: string) => boolean) =>
    labels.flatMap((label, number) => (fits(label) ? [number] : []));
  const exact = numbersOf((label) => label === name);
  const found = exact.length > 0 ? exact : numbersOf((label) => label.toLowerCase() === name.toLowerCase());
  if (found.length === 1) return found[0]!;
  if (exact.length > 1)
    throw new UsageError(
      `--labels: "${name}" is the name of the classes ${listOf(found)}; give the number of the one that is meant`,
    );
  if (/^\d+$/.test(name) && Number(name) < labels.length) return Number(name);
  throw new UsageError(
    `--labels: the model has no class "${name}"; the nearest is "${nearest(name, labels)}"`,
  );
}

/** Returns numbers as a list in a sentence. */
const listOf = (numbers: readonly number[]): string =>
  `${numbers.slice(0, -1).join(', ')} and ${numbers.at(-1)}`;

/**
 * Returns the classes of a model with the given names, in the order of the names. Case counts only if two classes differ
 * in nothing else. A number that is no name is the class of that number, so that of several classes with one name each
 * can be chosen.
 *
 * @throws UsageError if a name is no class (the message names the nearest), is that of several, or is given twice.
 */
export function candidatesByName(names: readonly string[], labels: readonly string[]): Candidate[] {
  const chosen = new Set<number>();
  return names.map((name) => {
    const classidx = classNumber(name, labels);
    if (chosen.has(classidx)) throw new UsageError(`--labels: "${name}" is given twice`);
    chosen.add(classidx);
    return { label: labels[classidx]!, classidx };
  });
}

const promptRow = z.object({
  prompt: z.string(),
  classname: z.string().min(1),
  classidx: z.string().regex(/^\d+$/).transform(Number),
});

/** A row of a table of prompts. */
export type PromptRow = Readonly<z.output<typeof promptRow>>;

/**
 * Reads a table of prompts: CSV with the columns prompt, classname and classidx; others are ignored.
 *
 * @throws UsageError naming the file and the line.
 */
export async function readPrompts(path: string): Promise<PromptRow[]> {
  const prompts: PromptRow[] = [];
  for await (const { row } of tableRows(path, promptRow)) prompts.push(row);
  if (prompts.length === 0) throw new UsageError(`${path}: holds no prompts`);
  return prompts;
}

/**
 * Makes candidates of a table of prompts for a model with classes of its own. The prompts have no effect there, so the rows
 * of one class become one candidate.
 *
 * @throws UsageError for a classidx that the model does not have.
 */
export function candidatesByPrompt(rows: readonly PromptRow[], labels: readonly string[]): Candidate[] {
  const byClass = new Map<number, Candidate>();
  for (const { classname, classidx } of rows) {
    if (classidx >= labels.length)
      throw new UsageError(
        `--prompts: classidx ${classidx} (${classname}); the model has 0 to ${labels.length - 1}`,
      );
    if (!byClass.has(classidx)) byClass.set(classidx, { label: classname, classidx });
  }
  return [...byClass.values()];
}

/** The default template of a prompt. */
export const TEMPLATE = 'a photo of a {}.';

/**
 * Makes candidates for a text model: a prompt for every name with every template. The class of a name is its place in the
 * list, which all its prompts share.
 *
 * @throws UsageError for a name given twice.
 */
export function candidatesByTemplate(
  names: readonly string[],
  templates: readonly string[] = [TEMPLATE],
): Candidate[] {
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new UsageError(`--labels: "${twice}" is given twice`);
  return names.flatMap((label, classidx) =>
    templates.map((template) => ({ label, classidx, prompt: template.split('{}').join(label) })),
  );
}

/** The options that choose the candidates; at most one of `labels` and `rows` is given. */
export interface CandidateChoice {
  readonly labels?: readonly string[] | undefined;
  readonly template?: readonly string[] | undefined;
  readonly rows?: readonly PromptRow[] | undefined;
}

/**
 * Returns the candidates of a run: classes if the model has classes of its own, prompts if it reads text. Then each row of
 * a table is a candidate of its own, even if rows share a class.
 *
 * @throws UsageError if the choice does not fit the model, or if all candidates are of one class.
 */
export function candidatesFor(
  model: Pick<ModelSummary, 'name' | 'conditioning' | 'labels'>,
  choice: CandidateChoice,
): Candidate[] {
  const candidates = chosen(model, choice);
  const [first] = candidates;
  if (candidates.every(({ classidx }) => classidx === first?.classidx))
    throw new UsageError(
      `${choice.labels ? '--labels' : '--prompts'}: expected at least two classes, got one (${first?.label}); ` +
        'with one class there is nothing to decide',
    );
  return candidates;
}

function chosen(
  { name, conditioning, labels: own }: Pick<ModelSummary, 'name' | 'conditioning' | 'labels'>,
  { labels, template, rows }: CandidateChoice,
): Candidate[] {
  switch (conditioning) {
    case 'class':
      if (template !== undefined)
        throw new UsageError(`--template makes prompts for text models; ${name} has classes of its own`);
      if (labels) return candidatesByName(labels, own);
      if (rows) return candidatesByPrompt(rows, own);
      return own.map((label, classidx) => ({ label, classidx }));
    case 'text':
      if (labels) return candidatesByTemplate(labels, template);
      if (rows)
        return rows.map(({ prompt, classname, classidx }) => ({ label: classname, classidx, prompt }));
      throw new UsageError(
        `${name} reads text and has no classes of its own: give the classes to choose between, with --labels A,B,... ` +
          'or --prompts FILE (CSV: prompt,classname,classidx)',
      );
    default:
      return conditioning satisfies never;
  }
}

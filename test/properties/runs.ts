// How long the trials of this folder run: seconds with the suite, minutes when `npm run test:all` asks for it by setting
// LONG_TRIALS. Seeds are fixed, so a run that fails fails again.

export const LONG = process.env.LONG_TRIALS === '1';

/** Returns the number of runs of a property: `short` with the suite, 100 times as many in a long trial. */
export const runs = (short: number): { readonly numRuns: number; readonly seed: number } => ({
  numRuns: LONG ? 100 * short : short,
  seed: 20_261_127,
});

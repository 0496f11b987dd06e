// How every subcommand is made.

import { Command } from 'commander';

/** Where the command's own texts (help, version, faults) go. */
export interface Texts {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
}

/** A command without an action: it throws `CommanderError` instead of ending the process. */
export const newCommand = (name: string, { out, err }: Texts): Command =>
  new Command(name)
    .exitOverride()
    .showHelpAfterError(`(${name} --help lists the options)`)
    .configureOutput({ writeOut: out, writeErr: err });

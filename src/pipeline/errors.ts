// Errors that a caller of the pipeline can act on.

/** An option, or a combination of options, that cannot be meant; the command line ends with status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** The fault of one item, which the stream carries on as a value: `code` is stable, `message` is for people. */
export class ItemError extends Error {
  override readonly name = 'ItemError';
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The fault that an `ItemError` carries; any other error is not an item's fault and is thrown on. */
export function faultOf(error: unknown): { readonly code: string; readonly message: string } {
  if (!(error instanceof ItemError)) throw error;
  return { code: error.code, message: error.message };
}

// Types of the host (Node or a browser) that public signatures name. Users compile with or without lib DOM and
// @types/node, so a public type must not name a global that may be missing.

/** `AbortSignal` where the host's types have it, else any object. */
export type AbortSignalLike = typeof globalThis extends { AbortSignal: { prototype: infer T } } ? T : object;

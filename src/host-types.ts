// Types of the host (Node or a browser) in public signatures. Users compile with or without lib DOM, @types/node and
// @webgpu/types, so a public type must not name a global that may be missing. Each type here is the host's own type if
// the user's project has it, and otherwise any object.

export type AbortSignalLike = typeof globalThis extends { AbortSignal: { prototype: infer T } } ? T : object;
export type GpuDevice = typeof globalThis extends { GPUDevice: { prototype: infer T } } ? T : object;
export type GpuBuffer = typeof globalThis extends { GPUBuffer: { prototype: infer T } } ? T : object;
export type GpuComputePass = typeof globalThis extends { GPUComputePassEncoder: { prototype: infer T } }
  ? T
  : object;
export type GpuDeviceLostInfo = typeof globalThis extends { GPUDeviceLostInfo: { prototype: infer T } }
  ? T
  : object;
export type GpuAdapter = typeof globalThis extends { GPUAdapter: { prototype: infer T } } ? T : object;

/** An object for `await using`, if the user's TypeScript library has `Symbol.asyncDispose`. */
export type AsyncDisposableLike = SymbolConstructor extends { readonly asyncDispose: infer S extends symbol }
  ? { readonly [K in S]: () => Promise<void> }
  : object;

// Matrix units: hardware that multiplies small matrices, one product per subgroup and instruction. Dawn offers them to
// WGSL as `chromium_experimental_subgroup_matrix`.

/** Rows, columns and depth of one product: an M x K matrix times a K x N matrix. */
export interface MatrixUnit {
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** The WebGPU feature that a device with matrix units has. */
export const MATRIX_FEATURE = 'chromium-experimental-subgroup-matrix';

/** A size of matrix units as Dawn lists it. */
export interface MatrixConfig extends MatrixUnit {
  readonly componentType: string;
  readonly resultComponentType: string;
}

/**
 * Returns the units that multiply f16 and sum in f32, in the adapter's order. The information of a device that the host
 * opened itself lacks them. `info` is a GPUAdapterInfo, a type that not every user of the package has.
 */
export function matrixUnits(info: object): MatrixUnit[] {
  const { subgroupMatrixConfigs = [] } = info as { readonly subgroupMatrixConfigs?: Iterable<MatrixConfig> };
  return [...subgroupMatrixConfigs]
    .filter((config) => config.componentType === 'f16' && config.resultComponentType === 'f32')
    .map(({ M, N, K }) => ({ M, N, K }));
}

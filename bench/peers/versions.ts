// The libraries that this one is compared with, and the versions that are installed.

export interface PeerEntry {
  /** Names the peer on the command line and its folder. */
  readonly id: string;
  readonly title: string;
  /** The npm packages that it needs, with their versions. */
  readonly packages: readonly string[];
  /** The program of its process, in this folder. */
  readonly program: string;
  /** What the program gets after the peer's folder. */
  readonly arguments?: readonly string[];
  readonly language?: 'python';
  /** Peers with the same folder share one installation. */
  readonly folder?: string;
}

const ONNXRUNTIME = {
  folder: 'onnxruntime',
  packages: ['onnxruntime-node@1.30.0'],
  program: 'onnxruntime.ts',
};

/** The peer whose times the others are compared with, and which must be first. */
export const OURS: PeerEntry = { id: 'ours', title: 'diffclass-stream', packages: [], program: 'ours.ts' };

export const PEERS: readonly PeerEntry[] = [
  OURS,
  {
    id: 'tfjs',
    title: 'tfjs WebGPU',
    packages: ['@tensorflow/tfjs-core@4.22.0', '@tensorflow/tfjs-backend-webgpu@4.22.0'],
    program: 'tfjs.ts',
  },
  { id: 'jax-js', title: 'jax-js WebGPU', packages: ['@jax-js/jax@0.1.25'], program: 'jax-js.ts' },
  { ...ONNXRUNTIME, id: 'ort-webgpu', title: 'onnxruntime WebGPU', arguments: ['webgpu'] },
  { ...ONNXRUNTIME, id: 'ort-cpu', title: 'onnxruntime CPU', arguments: ['cpu'] },
  { id: 'pytorch', title: 'PyTorch CPU', packages: [], program: 'pytorch.py', language: 'python' },
];

/** What PyTorch needs to export a network to ONNX, as arguments of pip. */
export const PYTHON_PACKAGES: readonly string[] = ['onnx==1.23.2', 'ml_dtypes==0.5.4', 'protobuf==6.33.2'];

// Writes models in the ONNX format: the few protobuf messages that a chain of nodes needs (onnx.proto, IR version 8).

/** A message or a part of it, in protobuf's wire format. */
type Bytes = Uint8Array;

const joined = (parts: readonly Bytes[]): Bytes => new Uint8Array(Buffer.concat(parts));

const varint = (value: number): Bytes => {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  return Uint8Array.of(...bytes, rest);
};

const tag = (field: number, type: 0 | 2 | 5): Bytes => varint(field * 8 + type);

const integer = (field: number, value: number): Bytes => joined([tag(field, 0), varint(value)]);

const bytes = (field: number, value: Bytes): Bytes => joined([tag(field, 2), varint(value.length), value]);

const text = (field: number, value: string): Bytes => bytes(field, new TextEncoder().encode(value));

const message = (field: number, ...parts: readonly Bytes[]): Bytes => bytes(field, joined(parts));

const float = (field: number, value: number): Bytes =>
  joined([tag(field, 5), new Uint8Array(Float32Array.of(value).buffer)]);

/** An attribute: an integer, a list of integers, or a float. */
export type Attribute = number | readonly number[] | { readonly float: number };

export interface OnnxNode {
  readonly op: string;
  readonly domain?: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes?: Readonly<Record<string, Attribute>>;
}

export interface OnnxTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly values: Float32Array | BigInt64Array;
}

export interface OnnxModel {
  readonly nodes: readonly OnnxNode[];
  readonly inputs: readonly Omit<OnnxTensor, 'values'>[];
  readonly outputs: readonly Omit<OnnxTensor, 'values'>[];
  readonly constants: readonly OnnxTensor[];
}

const FLOAT = 1;
const INT64 = 7;

const attribute = (name: string, value: Attribute): Bytes => {
  if (typeof value === 'number') return message(5, text(1, name), integer(3, value), integer(20, 2));
  if ('float' in value) return message(5, text(1, name), float(2, value.float), integer(20, 1));
  return message(5, text(1, name), ...value.map((one) => integer(8, one)), integer(20, 7));
};

const node = ({ op, domain, inputs, outputs, attributes = {} }: OnnxNode): Bytes =>
  message(
    1,
    ...inputs.map((name) => text(1, name)),
    ...outputs.map((name) => text(2, name)),
    text(4, op),
    ...Object.entries(attributes).map(([name, value]) => attribute(name, value)),
    ...(domain ? [text(7, domain)] : []),
  );

const constant = ({ name, shape, values }: OnnxTensor): Bytes =>
  message(
    5,
    ...shape.map((size) => integer(1, size)),
    integer(2, values instanceof Float32Array ? FLOAT : INT64),
    text(8, name),
    bytes(9, new Uint8Array(values.buffer, values.byteOffset, values.byteLength)),
  );

/** Describes an input (field 11) or output (field 12) of floats. */
const described = (field: 11 | 12, { name, shape }: Omit<OnnxTensor, 'values'>): Bytes => {
  const dimensions = shape.map((size) => message(1, integer(1, size)));
  return message(field, text(1, name), message(2, message(1, integer(1, FLOAT), message(2, ...dimensions))));
};

/** Returns the bytes of a model file with operators of ONNX 17 and of onnxruntime's own domain. */
export const onnxModel = ({ nodes, inputs, outputs, constants }: OnnxModel): Uint8Array =>
  joined([
    integer(1, 8),
    message(
      7,
      ...nodes.map(node),
      text(2, 'model'),
      ...constants.map(constant),
      ...inputs.map((input) => described(11, input)),
      ...outputs.map((output) => described(12, output)),
    ),
    message(8, text(1, ''), integer(2, 17)),
    message(8, text(1, 'com.microsoft'), integer(2, 1)),
  ]);

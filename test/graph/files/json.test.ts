import { describe, expect, it } from 'vitest';
import { ModelError } from '../../../src/errors.ts';
import { parseJson, quote } from '../../../src/graph/files/json.ts';

const parse = (text: string, python = false): unknown =>
  parseJson(new TextEncoder().encode(text), 'f', python);

describe('parseJson', () => {
  it.each<[text: string, value: unknown]>([
    [' {"a": [1, {"a": 2}], "b": {"a": 3}} ', { a: [1, { a: 2 }], b: { a: 3 } }],
    ['{"a\\"": "b\\\\", "c": "}{[:,"}', { 'a"': 'b\\', c: '}{[:,' }],
    ['["a", "a", {"a": "a"}]', ['a', 'a', { a: 'a' }]],
    ['7', 7],
  ])('reads %s', (text, value) => {
    expect(parse(text)).toEqual(value);
    expect(parse(text, true)).toEqual(value);
  });

  it.each<[text: string, message: string | RegExp]>([
    ['{"a": 1, "b": {}, "a": 2}', 'f: one object holds the key "a" twice'],
    ['{"a": {"x": "y", "\\u0078": 0}}', 'f: one object holds the key "x" twice'],
    ['[{"a": 1}, {"b": 1, "b": 1}]', 'f: one object holds the key "b" twice'],
    ['{"a": 1, "a"', /^f: not valid JSON \(/],
    ['{"a": "\\', /^f: not valid JSON \(/],
    ['}]:":', /^f: not valid JSON \(/],
    ['\u001b[31m\n{', /^f: not valid JSON \(\P{Cc}*\)$/u],
    ['\ufeff{}', /^f: not valid JSON/],
    ['', /^f: not valid JSON/],
    ['['.repeat(101), 'f: the JSON is nested more than 100 deep'],
  ])('refuses %j', (text, message) => {
    expect(() => parse(text)).toThrow(ModelError);
    expect(() => parse(text)).toThrow(message);
  });

  it("reads Python's infinities as text, and nothing else", () => {
    const text = '{"a": -Infinity, "b": [NaN, Infinity], "NaN": "\\"-Infinity"}';
    const value = { a: '-Infinity', b: ['NaN', 'Infinity'], NaN: '"-Infinity' };
    expect(parse(text, true)).toEqual(value);
    expect(() => parse(text)).toThrow('f: not valid JSON');
    expect(() => parse('{"a": Nap}', true)).toThrow('f: not valid JSON');
  });
});

describe('quote', () => {
  it('shortens names and escapes control characters', () => {
    expect(quote('a\n"\u001b\u009b')).toBe('"a\\n\\"\\u001b?"');
    expect(quote('x'.repeat(1e6))).toHaveLength(120);
    expect(quote(undefined)).toBe('undefined');
    expect(quote([1, null])).toBe('[1,null]');
  });
});

import { ModelError } from '../../src/errors.ts';
import type { Files } from '../../src/graph/files/files.ts';

/** Returns the files of a model from their bytes by name. */
export function memoryFiles(name: string, contents: ReadonlyMap<string, Uint8Array>): Files {
  return {
    name,
    describe: (file) => `memory:${name}${file === '' ? '' : `/${file}`}`,
    async list(folder) {
      const prefix = folder === '' ? '' : `${folder}/`;
      const inside = [...contents.keys()].filter((file) => file.startsWith(prefix));
      if (inside.length === 0) return undefined;
      return [...new Set(inside.map((file) => file.slice(prefix.length).split('/')[0]!))];
    },
    async open(file) {
      const bytes = contents.get(file);
      if (!bytes) throw new ModelError(`memory:${name}/${file}: no such file`);
      return {
        size: bytes.length,
        async read(offset, into) {
          const part = bytes.subarray(offset, offset + into.length);
          into.set(part);
          return part.length;
        },
        close: async () => undefined,
      };
    },
  };
}

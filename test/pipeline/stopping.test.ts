// Tests streams of results that the consumer or the source stops.

import { describe, expect, it } from 'vitest';
import { classifyImages } from '../../src/pipeline/classifying/classify-images.ts';
import type { ImageItem } from '../../src/pipeline/types.ts';
import { collect, type Fake, fakeModel, image, images, turns } from './fake-model.ts';

describe('stopping', () => {
  const forever = () => new Promise<never>(() => {});

  it('abort ends a stream that waits for the device, with the reason, and closes the model', async () => {
    const model = fakeModel({ beforeBatch: forever });
    const controller = new AbortController();
    const results = classifyImages(images(0, 5), async () => model, { signal: controller.signal });
    const first = results.next();
    void turns(5).then(() => controller.abort(new Error('enough')));
    await expect(first).rejects.toThrow('enough');
    expect(model.closed).toBe(1);
    expect(await results.next()).toEqual({ done: true, value: undefined });
  });

  it('return() ends a stream that waits for the device, without an error', async () => {
    const model = fakeModel({ beforeBatch: forever });
    const results = classifyImages(images(0, 5), async () => model);
    const first = results.next();
    await turns(5);
    expect(await results.return?.()).toEqual({ done: true, value: undefined });
    expect(await first).toEqual({ done: true, value: undefined });
    expect(model.closed).toBe(1);
  });

  it('while the model opens closes the model afterwards', async () => {
    const model = fakeModel();
    let open = (): void => {};
    const opening = new Promise<Fake>((resolve) => {
      open = () => resolve(model);
    });
    const controller = new AbortController();
    const results = classifyImages(images(0, 5), () => opening, { signal: controller.signal });
    const first = results.next();
    controller.abort();
    await expect(first).rejects.toThrow('abort');
    open();
    await new Promise(setImmediate);
    expect(model.closed).toBe(1);
  });

  it('breaking out of a loop closes the source, even during a pull', async () => {
    let returned = 0;
    const source: AsyncIterable<ImageItem> = {
      [Symbol.asyncIterator]: () => {
        let id = 0;
        return {
          next: () => (id < 2 ? Promise.resolve({ done: false, value: image(id++) }) : forever()),
          return: async () => {
            returned++;
            return { done: true, value: undefined };
          },
        };
      },
    };
    const model = fakeModel();
    for await (const _ of classifyImages(source, async () => model)) break;
    expect([returned, model.closed]).toEqual([1, 1]);
  });

  it('with an aborted signal, or without a reader, no model is opened', async () => {
    let opened = 0;
    const openModel = async () => {
      opened++;
      return fakeModel();
    };
    const signal = AbortSignal.abort(new Error('before'));
    await expect(collect(classifyImages(images(0, 5), openModel, { signal }))).rejects.toThrow('before');
    await classifyImages(images(0, 5), openModel).return?.();
    expect(opened).toBe(0);
  });

  it('a source that throws ends the stream with its error, after the finished results', async () => {
    async function* source() {
      yield image(0);
      await turns(100);
      throw new Error('the disk is gone');
    }
    const model = fakeModel();
    const seen: string[] = [];
    await expect(async () => {
      for await (const { path } of classifyImages(source(), async () => model)) seen.push(path);
    }).rejects.toThrow('the disk is gone');
    expect(seen).toEqual(['image 0']);
    expect(model.closed).toBe(1);
  });
});

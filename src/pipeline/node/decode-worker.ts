// A thread that decodes image files and fits them to a model (see `decode-pool.ts`): one request, one reply, in order.

import { parentPort } from 'node:worker_threads';
import { type ImageSummary, summaryOf } from '../images/conversions.ts';
import { failureOf } from '../images/failures.ts';
import { type DecodeReply, type DecodeRequest, READY } from './decode-messages.ts';
import { itemFrom, nameOf } from './image-from.ts';

async function load({ image, shape, options }: DecodeRequest): Promise<DecodeReply> {
  try {
    let summary: ImageSummary | undefined;
    const onDecoded = (decoded: Parameters<typeof summaryOf>[0]) => {
      summary = summaryOf(decoded);
    };
    return { item: await itemFrom(image, shape, { ...options, onDecoded }), summary };
  } catch (error) {
    try {
      return { failure: failureOf(nameOf(image), error) };
    } catch {
      return undefined;
    }
  }
}

const port = parentPort;
port?.on('message', async (request: DecodeRequest) => {
  const reply = await load(request);
  port.postMessage(reply, reply && 'item' in reply ? [reply.item.pixels.buffer as ArrayBuffer] : []);
});
port?.postMessage(READY);

// @ts-check
// Classifies uploaded images. All requests share one classifier: their evaluations fill common batches, and no answer
// depends on other requests. If a client disconnects, its work on the device stops.
//
//   node http-server.mjs [PORT] [MODEL]
//   curl --data-binary @photo.png http://localhost:8080/classify

import { serve } from '@hono/node-server';
import { ItemError, imageFrom, openClassifier } from 'diffclass-stream';
import { Hono } from 'hono';

const [port = '8080', model = 'fashion-mnist-multi-head'] = process.argv.slice(2);
const classifier = await openClassifier(model);

const app = new Hono();
app.post('/classify', async (context) => {
  try {
    const image = await imageFrom(await context.req.arrayBuffer(), {
      name: context.req.query('name') ?? 'upload',
    });
    return context.json(await classifier.classify(image, { topK: 3, signal: context.req.raw.signal }));
  } catch (error) {
    if (error instanceof ItemError) return context.json({ code: error.code, message: error.message }, 422);
    throw error;
  }
});

const server = serve({ fetch: app.fetch, port: Number(port) }, ({ port: bound }) =>
  console.log(`listening on http://localhost:${bound}`),
);
process.once('SIGTERM', async () => {
  server.close();
  await classifier.close();
});

// An ordinary Express service: every order asks the dependency for stock. It reads and writes no header itself;
// whatever travels with a request is carried by OpenTelemetry's auto-instrumentation.
'use strict';

const express = require('express');

const dependency = process.env.DEPENDENCY_URL;
const variant = process.env.VARIANT || 'nothing';

const TIMEOUT = 300; // ms
const ATTEMPTS = 3;

/** The stock of an article; an answer other than 200 is an error. */
async function stock(id, signal) {
  const answer = await fetch(`${dependency}/stock/${encodeURIComponent(id)}`, { signal });
  if (answer.status !== 200) {
    await answer.body?.cancel();
    throw new Error(`the dependency answered ${answer.status}`);
  }
  return (await answer.json()).stock;
}

/** What the service does about a dependency that is wrong or slow. */
const variants = {
  nothing: (id) => stock(id),

  fallback: (id) => stock(id, AbortSignal.timeout(TIMEOUT)).catch(() => 'unknown'),

  retry: async (id) => {
    for (let attempt = 1; ; attempt++) {
      try {
        return await stock(id, AbortSignal.timeout(TIMEOUT));
      } catch (error) {
        if (attempt === ATTEMPTS) throw error;
      }
    }
  },
};

const ask = variants[variant];
if (!ask || !dependency) {
  console.error('write DEPENDENCY_URL=http://host:port and VARIANT=nothing, fallback or retry');
  process.exit(2);
}

const app = express();
app.disable('x-powered-by');

app.get('/healthz', (_request, response) => {
  response.type('text').send('ok\n');
});

app.get('/checkout/:id', async (request, response) => {
  try {
    response.json({ order: 'placed', stock: await ask(request.params.id) });
  } catch {
    response.status(502).json({ order: 'refused', error: 'the dependency failed' });
  }
});

const server = app.listen(Number(process.env.PORT || 0), '127.0.0.1', (error) => {
  if (error) throw error;
  console.log(`listening ${server.address().port}`);
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));

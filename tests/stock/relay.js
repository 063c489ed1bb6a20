// An ordinary Express service in the middle of a chain: asks the next one for stock and hands on what it said. The last one
// has nobody to ask. It reads and writes no header itself; OpenTelemetry's auto-instrumentation carries what travels.
'use strict';

const express = require('express');

const next = process.env.DEPENDENCY_URL;

const app = express();
app.disable('x-powered-by');

app.get('/stock/:id', async (request, response) => {
  if (!next) {
    response.json({ id: request.params.id, stock: 5 });
    return;
  }
  try {
    const answer = await fetch(`${next}/stock/${encodeURIComponent(request.params.id)}`);
    response.status(answer.status).json(await answer.json());
  } catch {
    response.status(502).json({ error: 'the next service failed' });
  }
});

const server = app.listen(Number(process.env.PORT || 0), '127.0.0.1', (error) => {
  if (error) throw error;
  console.log(`listening ${server.address().port}`);
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));

// The shop's dependency: answers /stock/:id at once. No framework, no instrumentation.
'use strict';

const http = require('node:http');

const server = http.createServer((request, response) => {
  request.resume();
  const id = /^\/stock\/([^/?]+)$/.exec(request.url)?.[1];
  if (request.method !== 'GET' || !id) {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ id, stock: 5 }));
});

server.listen(Number(process.env.PORT || 0), '127.0.0.1', () => {
  console.log(`listening ${server.address().port}`);
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));

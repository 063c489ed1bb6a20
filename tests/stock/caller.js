// Ordinary clients, before the proxy: `node caller.js grpc|ws PORT` prints what it saw as one line of JSON.
const [, , kind, port] = process.argv;
const address = `127.0.0.1:${port}`;
const say = (seen) => console.log(JSON.stringify(seen));

const callers = {
  async grpc() {
    const grpc = require('@grpc/grpc-js');
    const Talk = grpc.makeGenericClientConstructor(require('./talk').service);
    const talk = new Talk(address, grpc.credentials.createInsecure());
    const metadata = new grpc.Metadata();
    metadata.set('x-caller', 'stock');
    const deadline = { deadline: Date.now() + 20000 };
    const seen = {};
    const unary = (text) =>
      new Promise((resolve) => {
        const outcome = {};
        const call = talk.unary({ text }, metadata, deadline, (error, answer) => {
          Object.assign(outcome, error ? { code: error.code, details: error.details } : { text: answer.text });
        });
        call.on('metadata', (head) => (outcome.head = head.get('x-head')[0]));
        call.on('status', (status) => setImmediate(() => resolve({ ...outcome, trailer: status.metadata.get('x-trailer')[0] })));
      });
    seen.unary = await unary('hello');
    seen.failed = await unary('fail');
    const collect = (call) =>
      new Promise((resolve) => {
        const texts = [];
        call.on('data', (piece) => texts.push(piece.text));
        call.on('error', () => {});
        call.on('status', (status) => resolve({ texts, code: status.code, details: status.details, trailer: status.metadata.get('x-trailer')[0] }));
      });
    seen.serverStream = await collect(talk.serverStream({ text: '100' }, metadata, deadline));
    seen.clientStream = await new Promise((resolve) => {
      const call = talk.clientStream(metadata, deadline, (error, answer) => resolve(error ? { code: error.code } : answer));
      for (const text of ['a', 'b', 'c']) call.write({ text });
      call.end();
    });
    const bidi = talk.bidi(metadata, deadline);
    const both = collect(bidi);
    // Each waits for the answer to the one before: it only ends if both directions stream.
    let left = 20;
    bidi.write({ text: 'x' });
    bidi.on('data', () => (--left ? bidi.write({ text: 'x' }) : bidi.end()));
    seen.bidi = await both;
    talk.close();
    say(seen);
  },
  async ws() {
    const WebSocket = require('ws');
    const socket = new WebSocket(`ws://${address}/echo`);
    const seen = { messages: [] };
    const sent = ['hello', Buffer.alloc(300000, 7), '', 'bye'];
    socket.on('open', () => socket.send(sent[0]));
    socket.on('message', (data, binary) => {
      seen.messages.push([binary, data.length]);
      socket.send(sent[seen.messages.length]);
    });
    socket.on('error', (error) => (seen.error = error.message));
    socket.on('close', (code, reason) => say({ ...seen, code, reason: reason.toString() }));
  },
};

callers[kind]();

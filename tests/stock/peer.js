// Ordinary servers to stand behind the proxy: PEER=grpc has one method of each kind, PEER=ws echoes over WebSocket.
const host = '127.0.0.1';
const port = Number(process.env.PORT ?? 0);
const listening = (at) => console.log(`listening ${at}`);

const servers = {
  grpc() {
    const grpc = require('@grpc/grpc-js');
    const { service, fail } = require('./talk');
    const server = new grpc.Server();
    server.addService(service, {
      unary(call, done) {
        const trailers = new grpc.Metadata();
        trailers.set('x-trailer', `for ${call.request.text}`);
        if (call.request.text === 'fail') return done(fail('as asked', trailers));
        const head = new grpc.Metadata();
        head.set('x-head', String(call.metadata.get('x-caller')));
        call.sendMetadata(head);
        done(null, { text: call.request.text.toUpperCase() }, trailers);
      },
      serverStream(call) {
        for (let n = 0; n < Number(call.request.text); n++) call.write({ text: `${n}` });
        const trailers = new grpc.Metadata();
        trailers.set('x-trailer', 'streamed');
        call.end(trailers);
      },
      clientStream(call, done) {
        let text = '';
        call.on('data', (piece) => (text += piece.text));
        call.on('end', () => done(null, { text }));
      },
      bidi(call) {
        call.on('data', (piece) => call.write({ text: piece.text.toUpperCase() }));
        call.on('end', () => call.end());
      },
    });
    server.bindAsync(`${host}:${port}`, grpc.ServerCredentials.createInsecure(), (error, bound) => {
      if (error) throw error;
      listening(bound);
    });
  },
  ws() {
    const { WebSocketServer } = require('ws');
    const server = new WebSocketServer({ host, port }, () => listening(server.address().port));
    server.on('connection', (socket) => {
      socket.on('message', (data, binary) => {
        if (data.toString() === 'bye') return socket.close(4000, 'as asked');
        socket.send(data, { binary });
      });
    });
  },
};

servers[process.env.PEER]();

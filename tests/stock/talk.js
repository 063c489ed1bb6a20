// A gRPC service without a .proto file: messages are JSON, so that nothing has to be generated.
const grpc = require('@grpc/grpc-js');

const requestSerialize = (message) => Buffer.from(JSON.stringify(message));
const requestDeserialize = (bytes) => JSON.parse(bytes);
const method = (name, requestStream, responseStream) => ({
  path: `/pratfall.test.Talk/${name}`,
  requestStream,
  responseStream,
  requestSerialize,
  requestDeserialize,
  responseSerialize: requestSerialize,
  responseDeserialize: requestDeserialize,
});

exports.service = {
  unary: method('Unary', false, false),
  serverStream: method('ServerStream', false, true),
  clientStream: method('ClientStream', true, false),
  bidi: method('Bidi', true, true),
};
exports.fail = (details, metadata) => ({ code: grpc.status.FAILED_PRECONDITION, details, metadata });

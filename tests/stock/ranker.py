"""A gRPC service and its caller, as the stock library speaks; messages are bytes, so that nothing is generated.

ranker.py serve     prints "listening PORT", and answers shop.Ranker/Rank with what it was sent
ranker.py ask PORT  calls it again and again, and prints each outcome when it is first seen: code, a tab, details
"""

import sys
import time
from concurrent import futures

import grpc


def serve():
    answer = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Ranker", {"Rank": answer})])
    print("listening", server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


def ask(port):
    seen = set()
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        rank = channel.unary_unary("/shop.Ranker/Rank")
        while True:
            try:
                rank(b"ranked", timeout=10)
                outcome = "OK\t"
            except grpc.RpcError as error:
                outcome = f"{error.code().name}\t{error.details()}"
            if outcome not in seen:
                seen.add(outcome)
                print(outcome, flush=True)
            time.sleep(0.005)


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else ask(sys.argv[2])

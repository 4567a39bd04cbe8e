"""A gRPC client: grpc_client.py ADDRESS AUTHORITY WHAT [ARGUMENT...]. Prints one JSON object."""

import json
import sys
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

ADDRESS, AUTHORITY, WHAT, *ARGUMENTS = sys.argv[1:]
OPTIONS = [
    ("grpc.default_authority", AUTHORITY),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
]
channel = grpc.insecure_channel(ADDRESS, options=OPTIONS)


def call(kind, name):
    return getattr(channel, kind)(f"/test.Echo/{name}", None, None)


def metadata(pairs):
    return {key: value.hex() if isinstance(value, bytes) else value for key, value in pairs or ()}


def unary(message=b"hello", timeout=10.0, **more):
    response, info = call("unary_unary", "Unary").with_call(message, timeout=timeout, **more)
    return [response], info


def unary_described():
    response, info = unary(metadata=(("x-carried", "value"), ("x-raw-bin", b"\x01\x02")))
    seen["initial"], seen["trailing"] = metadata(info.initial_metadata()), metadata(info.trailing_metadata())
    return response


def requests(count, size):
    for _ in range(count):
        yield b"x" * size


def conversation():
    """Each message goes out only after the answer to the one before it."""
    answers, sent = [], []

    def ask():
        for n in range(20):
            while len(answers) < n:
                time.sleep(0.001)
            sent.append(n)
            yield str(n).encode()

    for answer in call("stream_stream", "Bidi")(ask(), timeout=10):
        answers.append(answer)
    return answers


def health():
    stub = health_pb2_grpc.HealthStub(channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=ARGUMENTS[0]), timeout=10)
    return [health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status).encode()]


def each_of_many():
    """One channel, many calls: who answered them."""
    stub = call("unary_unary", "Unary")
    return [stub(b"x", timeout=10) for _ in range(int(ARGUMENTS[0]))]


def stream_until_it_breaks():
    for message in call("unary_stream", "ServerStream")(b"1000 0.01", timeout=20):
        print(message.decode(), flush=True)
    return []


DO = {
    "unary": lambda: unary()[0],
    "described": unary_described,
    "say": lambda: unary(ARGUMENTS[0].encode(), float(ARGUMENTS[1]) if len(ARGUMENTS) > 1 else 10.0)[0],
    "large": lambda: [str(len(unary(b"x" * int(ARGUMENTS[0]))[0][0])).encode()],
    "server_stream": lambda: list(call("unary_stream", "ServerStream")(ARGUMENTS[0].encode(), timeout=10)),
    "client_stream": lambda: [call("stream_unary", "ClientStream")(requests(100, 10_000), timeout=10)],
    "bidi": conversation,
    "health": health,
    "many": each_of_many,
    "until_it_breaks": stream_until_it_breaks,
}

seen = {"code": "OK", "messages": []}
begin = time.monotonic()
try:
    seen["messages"] = [message.decode() for message in DO[WHAT]()]
except grpc.RpcError as error:
    seen["code"], seen["details"] = error.code().name, error.details()
    seen["trailing"] = metadata(error.trailing_metadata())
seen["seconds"] = time.monotonic() - begin
print(json.dumps(seen), flush=True)

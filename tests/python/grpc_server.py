"""A gRPC server of plain bytes: grpc_server.py PORT NAME. Messages are `NAME:what was sent`."""

import sys
import threading
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

PORT, NAME = sys.argv[1], sys.argv[2]


def reply(message):
    return NAME.encode() + b":" + message


def unary(message, context):
    for key, value in context.invocation_metadata():
        if key == "x-carried":
            context.send_initial_metadata(((key, value),))
    if message.startswith(b"fail "):
        context.set_trailing_metadata((("x-trailer", "of a failure"),))
        context.abort(getattr(grpc.StatusCode, message[5:].decode()), "asked for: ä%")
    if message.startswith(b"sleep "):
        time.sleep(float(message[6:]))
    context.set_trailing_metadata((("x-trailer", "there"), ("x-binary-bin", b"\x00\xff")))
    return reply(message)


def server_stream(message, context):
    count, pause = message.decode().split()
    for n in range(int(count)):
        yield reply(str(n).encode())
        time.sleep(float(pause))


def client_stream(messages, context):
    sizes = [len(message) for message in messages]
    return reply(f"{len(sizes)} {sum(sizes)}".encode())


def bidi(messages, context):
    for message in messages:
        yield reply(message)


def handlers():
    kind = grpc
    return grpc.method_handlers_generic_handler(
        "test.Echo",
        {
            "Unary": kind.unary_unary_rpc_method_handler(unary),
            "ServerStream": kind.unary_stream_rpc_method_handler(server_stream),
            "ClientStream": kind.stream_unary_rpc_method_handler(client_stream),
            "Bidi": kind.stream_stream_rpc_method_handler(bidi),
        },
    )


server = grpc.server(
    futures.ThreadPoolExecutor(16),
    options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)],
)
server.add_generic_rpc_handlers((handlers(),))
checks = health.HealthServicer()
checks.set("test.Echo", health_pb2.HealthCheckResponse.SERVING)
checks.set("test.Ill", health_pb2.HealthCheckResponse.NOT_SERVING)
health_pb2_grpc.add_HealthServicer_to_server(checks, server)
server.add_insecure_port(f"127.0.0.1:{PORT}")
server.start()
threading.Event().wait()

"""A WebSocket client: websocket_client.py ADDRESS HOST WHAT. Prints one JSON object."""

import asyncio
import json
import os
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

ADDRESS, HOST, WHAT, *ARGUMENTS = sys.argv[1:]
host, port = ADDRESS.split(":")
seen = {}


async def echo(socket):
    sent = os.urandom(1 << 20)
    await socket.send(sent)
    seen["echo"] = await socket.recv() == sent
    await socket.send("text ä")
    seen["text"] = await socket.recv()
    seen["ping"] = await asyncio.wait_for(await socket.ping(b"x"), 5) is not None


async def server_closes(socket):
    await socket.send(f"close {ARGUMENTS[0]}")
    try:
        await socket.recv()
    except ConnectionClosed as closed:
        seen["code"], seen["reason"] = closed.rcvd and closed.rcvd.code, closed.rcvd and closed.rcvd.reason


async def client_closes(socket):
    await socket.close(int(ARGUMENTS[0]), "bye")
    seen["code"] = socket.close_code


async def headers(socket):
    await socket.send("headers")
    seen["headers"] = await socket.recv()


async def abort(socket):
    await socket.send("abort")
    try:
        await socket.recv()
    except ConnectionClosed as closed:
        seen["clean"] = closed.rcvd is not None


async def idle(socket):
    await asyncio.sleep(float(ARGUMENTS[0]))
    await socket.send("still")
    seen["text"] = await socket.recv()


async def main():
    options = {"host": host, "port": int(port), "max_size": None, "subprotocols": ["super"], "proxy": None}
    try:
        async with connect(f"ws://{HOST}/socket?x=1", **options) as socket:
            seen["subprotocol"] = socket.subprotocol
            await globals()[WHAT](socket)
    except InvalidStatus as refused:
        seen["status"] = refused.response.status_code
        seen["refused"] = dict((k.lower(), v) for k, v in refused.response.headers.raw_items())
    except ConnectionClosed:
        pass


asyncio.run(main())
print(json.dumps(seen), flush=True)

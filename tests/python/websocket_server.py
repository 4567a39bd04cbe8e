"""A WebSocket server: websocket_server.py PORT NAME. It echoes, or closes with the code it is asked for."""

import asyncio
import sys

from websockets.asyncio.server import serve


async def talk(connection):
    async for message in connection:
        if isinstance(message, str) and message.startswith("close "):
            await connection.close(int(message[6:]), "as asked")
            return
        if message == "headers":
            await connection.send("\n".join(f"{k.lower()}: {v}" for k, v in connection.request.headers.raw_items()))
            continue
        if message == "abort":
            connection.transport.abort()
            return
        await connection.send(message)


async def main():
    async with serve(talk, "127.0.0.1", int(sys.argv[1]), max_size=None, subprotocols=["chat", "super"]):
        await asyncio.Future()


asyncio.run(main())

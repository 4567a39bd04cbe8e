"""A client that speaks HTTP/2 frame by frame: h2_client.py ADDRESS AUTHORITY WHAT [ARGUMENT...]. Prints JSON.

The floods end when the server ends the connection, or after all frames were sent; `ended` says how.
"""

import json
import socket
import struct
import sys
import time

import h2.config
import h2.connection
import h2.events
import hpack

ADDRESS, AUTHORITY, WHAT, *ARGUMENTS = sys.argv[1:]
host, port = ADDRESS.split(":")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
seen = {"ended": "", "goaway": None, "resets": []}
wire = socket.create_connection((host, int(port)), timeout=10)


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def block(method="GET", path="/", more=()):
    fields = [(":method", method), (":scheme", "http"), (":authority", AUTHORITY), (":path", path), *more]
    return hpack.Encoder().encode(fields, huffman=False)


def hello():
    wire.sendall(PREFACE + frame(4, 0, 0) + frame(4, 1, 0))


def note(kind, flags, payload):
    if kind == 6 and not flags & 1:
        wire.sendall(frame(6, 1, 0, payload))
    elif kind == 7:
        seen["goaway"] = struct.unpack(">I", payload[4:8])[0]
    elif kind == 3:
        seen["resets"].append(struct.unpack(">I", payload)[0])


def listen(seconds):
    """Reads frames until the server ends the connection or time is over."""
    ahead, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        wire.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            data = wire.recv(65536)
        except TimeoutError:
            break
        except OSError:
            seen["ended"] = "reset"
            return
        if not data:
            seen["ended"] = seen["ended"] or "closed"
            return
        ahead += data
        while len(ahead) >= 9:
            size = int.from_bytes(ahead[:3], "big")
            if len(ahead) < 9 + size:
                break
            note(ahead[3], ahead[4], ahead[9 : 9 + size])
            ahead = ahead[9 + size :]
    seen["ended"] = "open"


def flood(frames, seconds=2.0):
    """Sends them all in large pieces, as long as the server takes them; then listens."""
    begin = time.monotonic()
    try:
        wire.settimeout(5)
        for piece in frames:
            wire.sendall(piece)
            if time.monotonic() - begin > 5:
                break
    except TimeoutError:
        seen["stalled"] = True
    except OSError:
        seen["broke"] = True
    listen(seconds)


def rapid_reset():
    hello()
    head = block()
    flood(
        b"".join(frame(1, 5, s, head) + frame(3, 0, s, struct.pack(">I", 8)) for s in range(n, n + 200, 2))
        for n in range(1, 40_001, 200)
    )


def continuation():
    hello()
    wire.sendall(frame(1, 1, 1, block()))
    filler = hpack.Encoder().encode([(f"x-{n}", "y" * 100) for n in range(100)], huffman=False)
    flood(frame(9, 0, 1, filler) for _ in range(20_000))


def empty_continuation():
    hello()
    wire.sendall(frame(1, 1, 1, block()))
    flood(frame(9, 0, 1) * 100 for _ in range(2_000))


def settings():
    hello()
    flood(frame(4, 0, 0, struct.pack(">HI", 3, 100)) * 100 for _ in range(2_000))


def ping():
    hello()
    flood(frame(6, 0, 0, b"12345678") * 100 for _ in range(2_000))


def empty_data():
    hello()
    wire.sendall(frame(1, 4, 1, block("POST")))
    flood(frame(0, 0, 1) * 100 for _ in range(2_000))


def priorities():
    hello()
    flood(frame(2, 0, 1, b"\0\0\0\0\x10") * 100 for _ in range(2_000))


def window_overflow():
    hello()
    wire.sendall(frame(8, 0, 0, struct.pack(">I", 0x7FFFFFFF)) * 2)
    listen(5)


def giant_hpack():
    """One byte each names a header of 4 KiB: a small block that would be large."""
    hello()
    encoder = hpack.Encoder()
    encoder.encode([(":method", "GET")])
    entry = b"\x40" + b"\x05x-big" + b"\x7f" + hpack.hpack.encode_integer(4000, 7)[1:] + b"z" * 4000
    body = block() + entry + b"\xbe" * 16_000
    wire.sendall(frame(1, 1, 1, body[:16_000]) + frame(9, 4, 1, body[16_000:32_000]))
    listen(5)


def never_ends():
    """Headers that are begun and not finished."""
    hello()
    wire.sendall(frame(1, 1, 1, block()))
    listen(float(ARGUMENTS[0]))


def without_settings():
    wire.sendall(b"PRI * HT")
    listen(float(ARGUMENTS[0]))


def bad_header():
    """A header that HTTP/1.1 would understand otherwise."""
    hello()
    wire.sendall(frame(1, 5, 1, block(more=[(ARGUMENTS[0], ARGUMENTS[1].encode().decode("unicode_escape"))])))
    listen(2)


def bad_path():
    hello()
    wire.sendall(frame(1, 5, 1, block(path=ARGUMENTS[0].encode().decode("unicode_escape"))))
    listen(2)


def length_lies():
    """More data than content-length says."""
    hello()
    head = block("POST", more=[("content-length", "3")])
    wire.sendall(frame(1, 4, 1, head) + frame(0, 1, 1, b"GET /smuggled HTTP/1.1\r\n\r\n"))
    listen(2)


def talk(method="GET", path="/", body=b"", until=lambda event: False):
    """One request by the library; gives what came."""
    h2c = h2.connection.H2Connection(h2.config.H2Configuration())
    h2c.initiate_connection()
    headers = [(":method", method), (":scheme", "http"), (":authority", AUTHORITY), (":path", path)]
    h2c.send_headers(1, headers, end_stream=not body)
    if body:
        h2c.send_data(1, body, end_stream=True)
    wire.sendall(h2c.data_to_send())
    seen["body"] = ""
    while True:
        data = wire.recv(65536)
        if not data:
            seen["ended"] = "closed"
            return
        for event in h2c.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                headers = {k.decode(): v.decode() for k, v in event.headers}
                seen["status"], seen["headers"] = headers[":status"], headers
            elif isinstance(event, h2.events.InformationalResponseReceived):
                seen.setdefault("interims", []).append(int(dict(event.headers)[b":status"]))
            elif isinstance(event, h2.events.TrailersReceived):
                seen["trailers"] = {k.decode(): v.decode() for k, v in event.headers}
            elif isinstance(event, h2.events.DataReceived):
                seen["body"] += event.data.decode()
                h2c.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, h2.events.StreamEnded):
                seen["ended"] = "whole"
                return
            elif isinstance(event, h2.events.StreamReset):
                seen["ended"], seen["code"] = "reset", int(event.error_code)
                return
            elif isinstance(event, h2.events.ConnectionTerminated):
                seen["goaway"] = int(event.error_code)
        wire.sendall(h2c.data_to_send())


def get():
    talk(path=ARGUMENTS[0] if ARGUMENTS else "/")


def post():
    talk("POST", ARGUMENTS[0], ARGUMENTS[1].encode())


def ask():
    talk(ARGUMENTS[0], ARGUMENTS[1])


def trailers():
    """A body with trailers, two of which would say something about the message."""
    hello()
    last = hpack.Encoder().encode([("x-sum", "4"), ("authorization", "Basic x"), ("host", "other")], huffman=False)
    wire.sendall(frame(1, 4, 1, block("POST")) + frame(0, 0, 1, b"body") + frame(0, 0, 1) + frame(1, 5, 1, last))
    listen(1)


def cancel():
    """A request that is given up after a while."""
    hello()
    wire.sendall(frame(1, 5, 1, block(path="/slow")))
    listen(float(ARGUMENTS[0]))
    wire.sendall(frame(3, 0, 1, struct.pack(">I", 8)))
    listen(0.3)


def drained():
    """Keeps a connection with one request that was answered, and says what the server says at its end."""
    hello()
    wire.sendall(frame(1, 5, 1, block()))
    print("ready", flush=True)
    listen(10)


def half_closed():
    """Asks twice, says that nothing more will come, and counts what does."""
    settings = struct.pack(">HI", 4, 1 << 24)
    wire.sendall(PREFACE + frame(4, 0, 0, settings) + frame(4, 1, 0) + frame(8, 0, 0, struct.pack(">I", 1 << 24)))
    wire.sendall(frame(1, 5, 1, block()) + frame(1, 5, 3, block()))
    time.sleep(float(ARGUMENTS[0]))
    wire.shutdown(socket.SHUT_WR)
    count()


def count():
    seen["data"], seen["streams"] = 0, 0
    ahead = b""
    while True:
        try:
            data = wire.recv(65536)
        except OSError:
            seen["ended"] = "reset"
            return
        if not data:
            seen["ended"] = "closed"
            return
        ahead += data
        while len(ahead) >= 9 and len(ahead) >= 9 + int.from_bytes(ahead[:3], "big"):
            size, kind, flags = int.from_bytes(ahead[:3], "big"), ahead[3], ahead[4]
            seen["data"] += size if kind == 0 else 0
            seen["streams"] += kind in (0, 1) and flags & 1
            if kind == 3:
                seen["resets"].append(struct.unpack(">I", ahead[9:13])[0])
            ahead = ahead[9 + size :]


def half_sent():
    """Breaks off in the middle of a body, with a half of the connection."""
    hello()
    wire.sendall(frame(1, 4, 1, block("POST")) + frame(0, 0, 1, b"begun"))
    time.sleep(2)
    wire.shutdown(socket.SHUT_WR)
    count()


def gone():
    """Asks and goes."""
    hello()
    wire.sendall(frame(1, 5, 1, block()))
    time.sleep(2)
    # What came is read, so that the end is none by reset.
    wire.recv(65536)
    wire.close()
    seen["ended"] = "gone"


def deaf():
    """Asks, and reads nothing."""
    wire.sendall(PREFACE + frame(4, 0, 0, struct.pack(">HI", 4, 1 << 24)) + frame(8, 0, 0, struct.pack(">I", 1 << 30)))
    wire.sendall(frame(1, 5, 1, block()))
    time.sleep(float(ARGUMENTS[0]))
    try:
        wire.sendall(frame(6, 0, 0, b"12345678"))
        time.sleep(0.2)
        wire.sendall(frame(6, 0, 0, b"12345678"))
        seen["ended"] = "open"
    except OSError:
        seen["ended"] = "reset"


def websocket():
    """A WebSocket by extended CONNECT: asks what the server saw, gets an echo, and closes."""
    hello()
    fields = [(":method", "CONNECT"), (":protocol", ARGUMENTS[0]), (":scheme", "http"), (":authority", AUTHORITY)]
    fields += [(":path", "/chat"), ("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat")]
    wire.sendall(frame(1, 4, 1, hpack.Encoder().encode(fields, huffman=False)))
    decoder, ahead, said, got = hpack.Decoder(), b"", [], b""

    def say(opcode, payload):
        size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
        message = bytes([0x80 | opcode]) + size + b"\0\0\0\0" + payload
        for at in range(0, len(message), 16_000):
            wire.sendall(frame(0, 0, 1, message[at : at + 16_000]))

    while True:
        data = wire.recv(65536)
        if not data:
            seen["ended"] = "closed"
            break
        ahead += data
        while len(ahead) >= 9 and len(ahead) >= 9 + int.from_bytes(ahead[:3], "big"):
            size, kind, flags, stream = int.from_bytes(ahead[:3], "big"), ahead[3], ahead[4], ahead[8]
            payload, ahead = ahead[9 : 9 + size], ahead[9 + size :]
            if kind == 4 and b"\0\x08\0\0\0\x01" in payload:
                seen["connect"] = True
            elif kind == 1:
                seen["headers"] = dict(decoder.decode(payload))
                if seen["headers"][":status"] == "200":
                    say(1, b"headers")
            elif kind == 0:
                got += payload
            if stream == 1 and kind in (0, 1) and flags & 1:
                seen["ended"] = "whole"
        while len(got) >= 2:
            short = got[1]
            begin, length = (2, short) if short < 126 else (4, int.from_bytes(got[2:4], "big"))
            if len(got) < begin + length:
                break
            opcode, message, got = got[0] & 15, got[begin : begin + length], got[begin + length :]
            said.append(message.decode(errors="replace") if opcode == 1 else f"close {int.from_bytes(message[:2], 'big')}")
            if len(said) == 1:
                say(1, b"x" * 40_000)
            elif len(said) == 2:
                say(8, struct.pack(">H", 1000))
        if seen["ended"]:
            break
    seen["said"] = [said[0], len(said[1]), said[2]] if len(said) == 3 else said


globals()[WHAT]()
print(json.dumps(seen), flush=True)

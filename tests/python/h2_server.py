"""A scripted HTTP/2 server: h2_server.py PORT HOW. Prints a line for each request, `CONNECTION METHOD PATH`.

ok: answers 200 with a trailer; refuse: refuses the first stream of all with REFUSED_STREAM; goaway: says GOAWAY with
last stream 0 to the first request of all and closes; reset: begins an answer and resets it (INTERNAL_ERROR); slow:
never answers, and says `reset CODE` when the client resets; hints: says 103 before it answers; enhance: refuses everything with ENHANCE_YOUR_CALM.
"""

import socket
import sys
import threading
import time

import h2.config
import h2.connection
import h2.events
import h2.settings

PORT, HOW = int(sys.argv[1]), sys.argv[2]
lock = threading.Lock()
count = 0


def first():
    global count
    with lock:
        count += 1
        return count == 1


def answer(h2c, stream, path):
    h2c.send_headers(stream, [(":status", "200"), ("content-type", "text/plain"), ("x-path", path)])
    h2c.send_data(stream, b"hello over h2")
    h2c.send_headers(stream, [("x-trailer", "there")], end_stream=True)


def request(connection, h2c, stream, path):
    """What is done with a request that is whole; False ends the connection."""
    if HOW == "refuse" and first():
        h2c.reset_stream(stream, 7)
    elif HOW == "goaway" and first():
        h2c.close_connection(last_stream_id=0)
        return False
    elif HOW == "reset":
        h2c.send_headers(stream, [(":status", "200"), ("content-length", "1000")])
        h2c.send_data(stream, b"begun")
        connection.sendall(h2c.data_to_send())
        time.sleep(0.1)
        h2c.reset_stream(stream, 2)
    elif HOW == "enhance":
        h2c.reset_stream(stream, 11)
    elif HOW != "slow":
        if HOW == "hints":
            h2c.send_headers(stream, [(":status", "103"), ("link", "</a>")])
        answer(h2c, stream, path)
    return True


def serve(connection, index):
    h2c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    h2c.initiate_connection()
    connection.sendall(h2c.data_to_send())
    paths = {}
    going = True
    while going:
        try:
            data = connection.recv(65536)
            events = h2c.receive_data(data) if data else []
        except Exception as broken:
            print(index, "broken", broken, flush=True)
            break
        if not data:
            print(index, "closed", flush=True)
            break
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                headers = {k.decode(): v.decode() for k, v in event.headers}
                paths[event.stream_id] = headers[":path"]
                print(index, headers[":method"], headers[":path"], flush=True)
            elif isinstance(event, h2.events.DataReceived):
                h2c.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                going = request(connection, h2c, event.stream_id, paths[event.stream_id]) and going
            elif isinstance(event, h2.events.StreamReset):
                print(index, "reset", int(event.error_code), flush=True)
            elif isinstance(event, h2.events.ConnectionTerminated):
                print(index, "goaway", int(event.error_code), flush=True)
        try:
            connection.sendall(h2c.data_to_send())
        except OSError:
            break
    connection.close()


listener = socket.create_server(("127.0.0.1", PORT), backlog=128)
index = 0
while True:
    accepted, _ = listener.accept()
    threading.Thread(target=serve, args=(accepted, index), daemon=True).start()
    index += 1

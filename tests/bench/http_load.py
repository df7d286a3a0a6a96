"""A load client: keep-alive connections that each send the same request again and again.

Run as a program of its own, so that it takes nothing from the interpreter that answers, on raw sockets,
because a client library would be slower than what it is to measure:

    python http_load.py PORT CONNECTIONS SECONDS STATUS < request

prints one JSON object: requests, seconds, errors, p50 and p99 in ms. An answer with any other status,
or none within 10 s, is an error. The first half second counts for nothing.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time

WARM_UP = 0.5
ANSWER_TIMEOUT = 10.0


class Connection:
    """One connection with at most one request under way."""

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), ANSWER_TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent = 0.0
        self._request = request
        self._received = b""

    def send(self) -> None:
        self.sent = time.perf_counter()
        self.socket.sendall(self._request)

    def receive(self) -> int | None:
        """The status, once the whole answer is there; 0 when the connection ended."""
        data = self.socket.recv(65_536)
        if not data:
            return 0
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return None
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                if len(body) < int(value):
                    return None
                self._received = body[int(value) :]
                return int(head.split(b" ", 2)[1])
        raise SystemExit(f"an answer without Content-Length: {head!r}")


def run(
    port: int, connections: int, seconds: float, status: int, request: bytes
) -> dict[str, float]:
    errors = 0
    taken: list[float] = []
    selector = selectors.EpollSelector()
    for _ in range(connections):
        connection = Connection(port, request)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.send()
    begin = time.perf_counter() + WARM_UP
    end = begin + seconds
    while (now := time.perf_counter()) < end and selector.get_map():
        ready = selector.select(ANSWER_TIMEOUT)
        if not ready:
            errors += len(selector.get_map())
            break
        for key, _ in ready:
            connection = key.data
            found = connection.receive()
            if found is None:
                continue
            now = time.perf_counter()
            if found != status:
                errors += 1
            elif begin <= now < end:
                taken.append(now - connection.sent)
            if found:
                connection.send()
            else:
                selector.unregister(connection.socket)
    selector.close()
    taken.sort()
    return {
        "requests": len(taken),
        "seconds": seconds,
        "errors": errors,
        "p50": taken[len(taken) // 2] * 1000 if taken else 0.0,
        "p99": taken[len(taken) * 99 // 100] * 1000 if taken else 0.0,
    }


if __name__ == "__main__":
    port, connections, seconds, status = sys.argv[1:]
    answer = run(int(port), int(connections), float(seconds), int(status), sys.stdin.buffer.read())
    print(json.dumps(answer))

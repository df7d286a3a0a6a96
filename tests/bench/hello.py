"""The reference for requests: a bare quart-trio application on hypercorn. Prints its port."""

from __future__ import annotations

import logging
import os
import socket

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart_trio import QuartTrio

app = QuartTrio("hello", static_folder=None)


@app.get("/")
async def hello() -> dict[str, str]:
    return {"hello": "world"}


def main() -> None:
    listener = socket.socket()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    config = Config()
    config.bind = [f"fd://{os.dup(listener.fileno())}"]
    config.keep_alive_timeout = 75.0
    config.keep_alive_max_requests = 1 << 30
    config.errorlog = logging.getLogger("hypercorn.error")
    config.accesslog = None
    print(listener.getsockname()[1], flush=True)
    listener.close()
    trio.run(serve, app, config)


if __name__ == "__main__":
    main()

"""A stand-in for Amazon's service that gives tokens for its registries."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "s3cret"}


class Amazon:
    """Stands in for the service that gives tokens."""

    def __init__(self, credentials: str) -> None:
        self.status = 200
        self.answer: Any = {
            "authorizationData": [
                {"authorizationToken": base64.b64encode(credentials.encode()).decode()}
            ]
        }
        self.requests: list[tuple[dict[str, str], Any]] = []
        amazon = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                amazon.requests.append((headers, json.loads(body)))
                content = json.dumps(amazon.answer).encode()
                self.send_response(amazon.status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.environment = {
            **KEYS,
            "AWS_ENDPOINT_URL_ECR": f"http://127.0.0.1:{self.server.server_port}",
        }


@contextmanager
def serve_amazon(credentials: str) -> Iterator[Amazon]:
    """The service, giving these credentials, `user:password`, to everybody."""
    amazon = Amazon(credentials)
    thread = threading.Thread(target=amazon.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield amazon
    finally:
        amazon.server.shutdown()
        thread.join()
        amazon.server.server_close()

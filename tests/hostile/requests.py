"""Hostile requests: made from the server's own description of its routes, and by hand for what no client
library would send.
"""

from __future__ import annotations

import http.client
import itertools
import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from tests.acceptance.conftest import Server

PATIENCE = 60.0
"""Seconds in which any request is answered: a bound, no measure."""
QUIET = 2.0
"""Seconds after which a connection is left on which the server waits for more."""
KNOWN = {501}
"""What is knowingly not there is no failure."""

TEXTS = (
    "..",
    "../../../../etc/passwd",
    "..\\..\\etc",
    "'; DROP TABLE jobs; --",
    "' OR '1'='1",
    '" UNION SELECT secret FROM tokens --',
    "x') OR 1=1 /*",
    "%",
    "_%_",
    "*",
    "a:b AND (",
    "name:/(a+)+$/ OR tags:[* TO *]",
    "NOT NOT NOT",
    "(" * 200,
    "id:" + "9" * 400,
    "\\",
    '"',
    "{",
    "a\r\nSet-Cookie: a=b",
    "\u202e\U0001f4a9",
    "-1",
    "0" * 5_000,
    "9" * 30,
    "1e309",
    "NaN",
    "x" * 3_000,
    "a," * 2_000,
    "C.UTF-8/../@eval(1)",
    "KBC::ProjectSecure::" + "A" * 100,
    "9999-99-99T99:99:99Z",
    "-999999999 years",
)
"""What stands where a parameter is expected."""
PATHS = (
    "%2e%2e",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%00",
    "a%00.csv",
    "%ff%fe",
    "%c0%ae%c0%ae%c0%af",
    "%ed%a0%80",
    "%",
    "%zz",
    "%252e%252e",
    "x" * 5_000,
    "0" * 5_000,
    "99999999999999999999999999",
    "-1",
    "'%20OR%201=1%20--",
    ";a=b",
    "%0d%0aa:%20b",
    "in.c-b.t%27",
    "*",
)
"""What stands where a part of a path is expected, as it is sent."""
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**400,
    1.5e308,
    "",
    "\0",
    "' OR 1=1 --",
    "../../x",
    "x" * 20_000,
    "\U0001f4a9",
    [],
    [[]],
    [None],
    {},
    {"a": {"b": [{}]}},
    ["x"] * 3_000,
)
"""What stands where a member of a body is expected."""
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
BODIES = (
    (JSON, b"\xff\xfe{\x00}\x00"),
    (JSON, '{"a": "é"}'.encode("latin-1")),
    (JSON, b"[" * 100_000),
    (JSON, b'{"a":' * 100_000),
    (JSON, b"{" + b'"a": 1, ' * 10_000 + b'"a": 1}'),
    (JSON, b'{"name": "\\ud800"}'),
    (JSON, b'{"name": "\\u0000"}'),
    (JSON, b'{"limit": ' + b"9" * 5_000 + b"}"),
    (JSON, b'{"limit": 1e999, "name": NaN}'),
    (JSON, b"null"),
    (JSON, b"[]"),
    (JSON, b'"text"'),
    (JSON, b"\xef\xbb\xbf{}"),
    (JSON, b"{} {}"),
    (FORM, b"a" + b"[b]" * 10_000 + b"=1"),
    (FORM, b"&".join(b"k%d=v" % number for number in range(100_001))),
    (FORM, b"a[999999999999999]=1&a[5]=2&a[]=3"),
    (FORM, b"a[b]=1&a=2&a[b][c]=3&[x]=4&]=5&a[=6"),
    (FORM, b"%ff=%ff&name=%c0%ae"),
    (FORM, b"&&&&===&=&" * 1_000),
    ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data"),
    ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: b\r\n" * 20_000),
    ("multipart/form-data", b"--\r\n\r\n"),
    ("multipart/form-data; boundary=" + "y" * 5_000, b"--y"),
    ("text/plain", b"x"),
    ("application/json; charset=utf-16", "{}".encode("utf-16")),
    ("\\", b"{}"),
)


@dataclass(frozen=True)
class Operation:
    """A method of a path, as the server describes it."""

    method: str
    path: str
    query: tuple[str, ...]
    members: tuple[str, ...]
    """Members that its body may have."""

    def at(self, part: str) -> str:
        """The path with `part` for all of its variables, which are as they are sent."""
        return re.sub(r"{\w+}", lambda _: part, self.path)


def operations(document: dict[str, Any]) -> list[Operation]:
    """What an OpenAPI document describes."""
    schemas = document["components"]["schemas"]
    found = []
    for path, item in document["paths"].items():
        for method, each in item.items():
            query = tuple(p["name"] for p in each["parameters"] if p["in"] == "query")
            content = each.get("requestBody", {}).get("content", {})
            members = set(MEMBERS)
            for media in content.values():
                members |= set(_properties(media.get("schema", {}), schemas))
            found.append(Operation(method.upper(), path, query, tuple(sorted(members))))
    return found


MEMBERS = ("name", "id", "description", "config", "configData", "metadata", "columns", "data")
"""Members that most bodies know."""


def _properties(schema: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    reference = schema.get("$ref", "").rpartition("/")[2]
    if reference:
        schema = schemas[reference]
    yield from schema.get("properties", {})
    for each in (*schema.get("allOf", ()), *schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _properties(each, schemas)


class Client:
    """Sends what it is told to, byte by byte."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.address = (parts.hostname, parts.port or 80)
        self._token = token
        self._connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE)
        self.count = 0
        """Requests so far."""

    @classmethod
    def of(cls, server: Server) -> Client:
        """A client with a token of its own: the first one's id is what requests take tokens away by."""
        made = server.vaka("token", "create", "--description", "hostile", "--role", "admin")
        return cls(server.url, made["token"])

    def close(self) -> None:
        self._connection.close()

    @property
    def is_known(self) -> bool:
        """Whether its token is still good, so that what it asked for was done as far as it could be."""
        return self.ask("GET", "/v2/storage/tokens/verify")[0] == 200

    def ask(
        self, method: str, path: str, body: bytes | None = None, kind: str | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and the first of the answer's bytes."""
        self.count += 1
        headers = {"X-StorageApi-Token": self._token}
        if kind is not None:
            headers["Content-Type"] = kind
        for is_last in (False, True):
            try:
                self._connection.request(method, path, body, headers)
                answer = self._connection.getresponse()
                content = answer.read(1 << 16)
                if not answer.isclosed():
                    self._connection.close()
            except (http.client.HTTPException, OSError):
                # a server that refuses a body closes the connection: once is its right
                self._connection.close()
                if is_last:
                    raise
            else:
                return answer.status, answer.headers, content
        raise AssertionError

    def wrong(self, method: str, path: str, *body: Any) -> str | None:
        """What is wrong with the answer, if anything."""
        try:
            status, headers, content = self.ask(method, path, *body)
        except (http.client.RemoteDisconnected, ConnectionError):
            return None  # refused before it was read
        shown = f"{method} {path[:150]} {str(body)[:150]}: {status} {content[:300]!r}"
        if status >= 500 and status not in KNOWN:
            return shown
        if "Set-Cookie" in headers or b"root:x:0:0" in content or b"Traceback" in content:
            return shown
        return None

    def raw(self, data: bytes) -> bytes:
        """What comes back for these bytes, on a connection of their own."""
        self.count += 1
        with closing(socket.create_connection(self.address, PATIENCE)) as connection:
            with suppress(OSError):  # who refuses it may have hung up before its end
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            connection.settimeout(QUIET)
            answer = b""
            with suppress(ConnectionError, TimeoutError):
                while part := connection.recv(1 << 16):
                    answer += part
            return answer


def in_paths(found: list[Operation]) -> Iterator[tuple[Any, ...]]:
    """Each route with names that lead elsewhere."""
    for each in found:
        if "{" in each.path:
            yield from ((each.method, each.at(part)) for part in PATHS)


def in_queries(found: list[Operation]) -> Iterator[tuple[Any, ...]]:
    """Each parameter of each route with what no parameter should be; for writing routes fewer."""
    for each in found:
        texts = TEXTS if each.method == "GET" else TEXTS[:6]
        for name in (*each.query, "q", "limit"):
            for text in texts:
                yield each.method, f"{each.at('1')}?{name}={quote(text, safe='')}"
            for brackets in ("[]", "[a][b]", "[" * 50):
                yield each.method, f"{each.at('1')}?{name}{brackets}=1&{name}=2"


def in_bodies(found: list[Operation]) -> Iterator[tuple[Any, ...]]:
    """Each writing route with bodies that are none."""
    for each in found:
        if each.method in {"POST", "PUT"}:
            yield from ((each.method, each.at("1"), body, kind) for kind, body in BODIES)


def in_members(found: list[Operation]) -> Iterator[tuple[Any, ...]]:
    """Each writing route with all members of its body being of a kind that they should not be, and with
    only one of them.
    """
    for each in found:
        if each.method not in {"POST", "PUT"}:
            continue
        for value in VALUES:
            body = json.dumps(dict.fromkeys(each.members, value)).encode()
            yield each.method, each.at("1"), body, JSON
        good = dict.fromkeys(each.members, "a")
        for name, value in itertools.product(each.members, VALUES[::3]):
            yield each.method, each.at("1"), json.dumps({**good, name: value}).encode(), JSON


HEAD = b"GET /v2/storage HTTP/1.1\r\nHost: a\r\n"
RAW = {
    "header flood": HEAD + b"".join(b"X-%d: y\r\n" % n for n in range(100_000)) + b"\r\n",
    "long header": HEAD + b"X: " + b"y" * 10_000_000 + b"\r\n\r\n",
    "long path": b"GET /" + b"a" * 10_000_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "no line break": b"x" * 10_000_000,
    "nothing": b"",
    "zeros": bytes(100_000),
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 100,
    "bad version": b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "hosts": HEAD + b"Host: b\r\n\r\n",
    "odd host": b"GET /readyz HTTP/1.1\r\nHost: ../../\xff:99999999\r\n\r\n",
    "absolute": b"GET http://other.example/readyz HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "connect": b"CONNECT other.example:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "trace": b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
    "unknown method": b"A" * 1_000 + b" / HTTP/1.1\r\nHost: a\r\n\r\n",
    "slashes": b"GET //etc//passwd HTTP/1.1\r\nHost: a\r\n\r\n",
    "dots": b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in path": b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
    "8 bits in path": b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    "smuggled": b"POST /docker/C/run HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /readyz HTTP/1.1\r\nHost: a\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "negative length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "endless length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: "
    + b"9" * 5_000
    + b"\r\n\r\n",
    "bad chunks": b"POST /docker/C/run HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "huge chunk": b"POST /docker/C/run HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"FFFFFFFFFFFFFFFFFFFF\r\n",
    "folded header": HEAD + b"X: a\r\n b\r\n\tc\r\n\r\n",
    "header with NUL": HEAD + b"X: a\0b\r\n\r\n",
    "bare line feeds": b"GET /readyz HTTP/1.1\nHost: a\n\n",
    "websocket": HEAD
    + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    "http2 upgrade": HEAD + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
    "http2 prior": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 10_000,
    "bad upgrade": HEAD + b"Upgrade: h2c\r\nHTTP2-Settings: !!!\r\n\r\n",
    "expect": b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    "pipeline": (HEAD + b"\r\n") * 100,
    "odd run id": HEAD + b"X-KBC-RunId: " + b"9" * 5_000 + b"\r\n\r\n",
    "odd range": b"GET /kbc.blob.core.windows.net/a/b HTTP/1.1\r\nHost: a\r\n"
    b"Range: bytes=--1-,,\r\n\r\n",
}
"""What is sent on a connection of its own; any answer of below 500 will do, and none at all too."""

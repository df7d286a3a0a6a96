"""Requests that no client should send, to a real server: no answer of 500, no hang, little memory."""

from __future__ import annotations

import json
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from itertools import islice

import pytest
from tests.acceptance.conftest import Server
from tests.hostile import requests
from tests.hostile.requests import RAW, Client, Operation
from tests.hostile.site import watching

pytestmark = pytest.mark.docker

GROWTH = 200 << 20
"""Bytes by which the server may grow."""
SHARE = {"paths": 23, "queries": 101, "bodies": 29, "members": 103}
"""The short form sends one in so many."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, docker_host: str) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("requests") / "home"
    home.mkdir()
    with closing(Server(home, f"test-{secrets.token_hex(4)}")) as server:
        server.start()
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with closing(Client.of(server)) as client:
        yield client


@pytest.fixture(scope="module")
def found(server: Server) -> list[Operation]:
    return requests.operations(server.get("/openapi.json").json())


@pytest.mark.parametrize("kind", list(SHARE))
def test_no_request_fails_inside(
    server: Server, client: Client, found: list[Operation], kind: str
) -> None:
    every = getattr(requests, f"in_{kind}")(found)
    with watching(server) as watch:
        asked = islice(every, 0, None, SHARE[kind])
        before = client.count
        wrong = [each for each in (client.wrong(*one) for one in asked) if each]
    assert wrong == []
    assert client.is_known
    assert client.count > before + 100
    assert watch.failures == []
    assert watch.growth < GROWTH


@pytest.mark.parametrize("kind", list(RAW))
def test_what_is_no_http_is_refused(client: Client, kind: str) -> None:
    answer = client.raw(RAW[kind])
    assert set(re.findall(rb"^HTTP/1\.1 (5..)", answer, re.MULTILINE)) == set()
    assert b"root:x:0:0" not in answer
    assert client.ask("GET", "/healthz")[0] == 200


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /readyz HTTP/1.1\r\nHost: a\r\nX: ",
        b"POST /docker/C/run HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{",
        b"",
    ],
    ids=["head", "body", "nothing"],
)
def test_clients_that_trickle_keep_nobody_else_from_being_served(
    server: Server, client: Client, begin: bytes
) -> None:
    with ExitStack() as stack, watching(server) as watch:
        slow = [
            stack.enter_context(socket.create_connection(client.address, requests.PATIENCE))
            for _ in range(200)
        ]
        for connection in slow:
            connection.sendall(begin)
        for _ in range(3):
            for connection in slow:
                with suppress(ConnectionError):  # a body that nobody wants may be refused early
                    connection.sendall(b"a")
        for _ in range(10):
            assert client.is_known
    assert watch.failures == []
    assert watch.growth < GROWTH


def test_the_log_tells_of_no_failure(server: Server) -> None:
    lines = (server.home / "server.log").read_text().splitlines()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    assert [each for each in told if each.get("level") in {"error", "critical"}] == []
    assert [line for line in lines if not line.startswith("{")] == []

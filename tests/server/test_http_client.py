"""The command line's HTTP client, where a server is slow, odd, or goes away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypercorn.trio import serve as serve_http
from tests.server.fakes import FakeEngine, make_app

from vaka.errors import (
    AccessDenied,
    ApplicationError,
    AuthenticationFailed,
    Conflict,
    InvalidInput,
    NotAllowed,
    NotFound,
    Overloaded,
)
from vaka.models.job import JobSpec
from vaka_server.cli import http
from vaka_server.cli.client import JobFilter, Run
from vaka_server.cli.http import HttpClient, NoServer
from vaka_server.serve import hypercorn_config, listen
from vaka_server.settings import Settings


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return FakeEngine(tmp_path)


class Server:
    """A server on a real socket."""

    def __init__(self) -> None:
        self.port = 0
        self.scope = trio.CancelScope()
        self.ended = trio.Event()

    async def end(self) -> None:
        """Break every connection, and return when the address is free."""
        self.scope.cancel()
        await self.ended.wait()


async def serve(engine: FakeEngine, nursery: trio.Nursery, port: int = 0) -> Server:
    app = make_app(engine)
    listener = listen(Settings(home=engine.config.home, port=port))
    server = Server()
    server.port = listener.getsockname()[1]
    config = hypercorn_config(app.settings, listener)
    config.graceful_timeout = 0
    listener.close()

    async def run(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with server.scope:
            async with trio.open_nursery() as inner:
                await inner.start(serve_http, app, config)
                task_status.started()
        server.ended.set()

    await nursery.start(run)
    return server


async def test_following_a_job_goes_on_over_a_restart_of_the_server(engine: FakeEngine) -> None:
    await engine.submit(JobSpec(component="C", config="x"))
    seen: list[str] = []
    progressed = trio.Event()

    async def follow(port: int) -> None:
        nonlocal progressed
        async with (
            HttpClient(f"http://127.0.0.1:{port}", "secret") as client,
            aclosing(client.events(1, follow=True)) as events,
        ):
            async for event in events:
                seen.append(event.message)
                progressed.set()

    async def sees(message: str) -> None:
        nonlocal progressed
        with trio.fail_after(60):
            while message not in seen:
                progressed = trio.Event()
                await progressed.wait()

    async with trio.open_nursery() as nursery:
        server = await serve(engine, nursery)
        async with trio.open_nursery() as watchers:
            watchers.start_soon(follow, server.port)
            engine.say("one")
            await sees("one")
            await server.end()
            engine.say("two")
            server = await serve(engine, nursery, server.port)
            await sees("two")
            engine.say("three")
            engine.finish(1)
        await server.end()
    assert seen == ["one", "two", "three"]


async def test_a_line_may_hold_what_ends_lines_elsewhere(engine: FakeEngine) -> None:
    await engine.submit(JobSpec(component="C", config="x"))
    said = ["a\u2028b", "c\x85d\x1ce\r\n", "f\x0b\x0cg"]
    for text in said:
        engine.say(text)
    async with trio.open_nursery() as nursery:
        server = await serve(engine, nursery)
        async with (
            HttpClient(f"http://127.0.0.1:{server.port}", "secret") as client,
            aclosing(client.events(1, follow=False)) as events,
        ):
            assert [event.message async for event in events] == said
        await server.end()


async def test_a_server_that_does_not_come_back_is_given_up(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "PATIENCE", 0.1)
    monkeypatch.setattr(http, "PAUSE", 0.01)
    async with HttpClient("http://127.0.0.1:1", "secret") as client:
        with pytest.raises(NoServer, match=r"The server at http://127.0.0.1:1 does not answer"):
            async with aclosing(client.events(1, follow=True)) as events:
                await anext(events)


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://a", "http://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="is not the URL of a server"):
        HttpClient(url, None)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (InvalidInput("told"), InvalidInput),
        (Conflict("told"), Conflict),
        (NotFound("told", kind="project", id="1"), NotFound),
        (AccessDenied("told"), AccessDenied),
        (Overloaded("told", retry_after=1), Overloaded),
        (NotAllowed("told"), NotAllowed),
        (ApplicationError("told"), ApplicationError),
    ],
)
async def test_an_error_of_the_server_is_the_engines_own(
    engine: FakeEngine, failure: Exception, expected: type[Exception]
) -> None:
    engine.failure = failure
    async with trio.open_nursery() as nursery:
        server = await serve(engine, nursery)
        async with HttpClient(f"http://127.0.0.1:{server.port}", "secret") as client:
            with pytest.raises(expected) as caught:
                await client.run(Run("C", {"config": "x"}))
            assert type(caught.value) is expected
            if expected is ApplicationError:
                assert "The server's log has it as docker-" in str(caught.value)
                assert "told" not in str(caught.value)
            elif expected is not AccessDenied:
                assert str(caught.value) == "told"
        async with HttpClient(f"http://127.0.0.1:{server.port}", "wrong") as client:
            with pytest.raises(AuthenticationFailed, match="--token"):
                await client.jobs(JobFilter())
        await server.end()


async def test_what_is_no_server_of_ours_is_an_error_in_words() -> None:
    async def talk(answer: bytes, ask: Callable[[HttpClient], Awaitable[Any]]) -> Exception:
        async def handle(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            await stream.send_all(answer)
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
            port = listener.socket.getsockname()[1]
            async with HttpClient(f"http://127.0.0.1:{port}", "secret") as client:
                with pytest.raises(ApplicationError) as caught:
                    await ask(client)
            nursery.cancel_scope.cancel()
        return caught.value

    page = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>"
    error = await talk(page, lambda client: client.job(1))
    assert str(error) == "The server failed (502): The server answered 502 to GET /queue/job/1."
    error = await talk(b"SSH-2.0-x\r\n", lambda client: client.job(1))
    assert isinstance(error, NoServer)
    listed = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
    error = await talk(listed, lambda client: client.job(1))
    assert str(error) == "The server answered with something else than it should."

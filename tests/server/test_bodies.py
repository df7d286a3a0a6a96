"""Bodies: bounded in memory whatever their size, and no connection is left hanging by one."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypercorn.trio import serve as serve_http
from tests.server.fakes import FakeEngine, make_app, scope
from werkzeug.exceptions import RequestEntityTooLarge

from vaka_server import body
from vaka_server.access import Access
from vaka_server.app import App
from vaka_server.body import Body
from vaka_server.problems import Refused
from vaka_server.route import Call, Response, Route
from vaka_server.serve import hypercorn_config, listen
from vaka_server.settings import Settings

PART = bytes(1 << 16)
HEADERS = {"X-StorageApi-Token": "secret"}


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return FakeEngine(tmp_path)


# -- the body itself -------------------------------------------------------------------------------


async def test_more_than_a_window_of_a_body_waits_outside() -> None:
    incoming = Body(None, None)
    sent = 0

    async def send() -> None:
        nonlocal sent
        for _ in range(100):
            incoming.append(PART)
            sent += len(PART)
            await incoming.room()
        incoming.set_complete()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert sent <= body.WINDOW + len(PART)
        received = 0
        async for part in incoming:
            assert len(part) <= body.WINDOW + len(PART)
            received += len(part)
            await trio.testing.wait_all_tasks_blocked()
            assert sent - received <= body.WINDOW + len(PART)
    assert received == 100 * len(PART)


async def test_a_body_that_is_awaited_as_a_whole_is_bounded_by_the_limit() -> None:
    small = Body(None, 10 * len(PART))

    async def fill(target: Body, parts: int) -> None:
        for _ in range(parts):
            target.append(PART)
            await target.room()
        target.set_complete()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill, small, 9)
        assert len(await small) == 9 * len(PART)
    large = Body(None, 10 * len(PART))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill, large, 11)
        with pytest.raises(RequestEntityTooLarge):
            await large
    with pytest.raises(RequestEntityTooLarge):
        await Body(11 * len(PART), 10 * len(PART))


async def test_nobody_waits_to_send_what_nobody_reads() -> None:
    incoming = Body(None, None)

    async def send() -> None:
        for _ in range(100):
            incoming.append(PART)
            await incoming.room()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        incoming.discard()
    assert [part async for part in incoming] == []


async def test_a_body_that_stops_coming_is_given_up(
    engine: FakeEngine, autojump_clock: trio.abc.Clock
) -> None:
    incoming = Body(None, None)
    incoming.append(b"some")
    assert await anext(incoming) == b"some"
    before = trio.current_time()
    with pytest.raises(Refused) as caught:
        await anext(incoming)
    assert caught.value.status == 408
    assert trio.current_time() - before == pytest.approx(body.SILENCE)


# -- on a real socket ------------------------------------------------------------------------------


class Site:
    """An application behind a real socket."""

    def __init__(self, app: App, port: int) -> None:
        self.app = app
        self.port = port

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[trio.SocketStream]:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            yield stream


async def served(app: App, nursery: trio.Nursery) -> Site:
    settings = Settings(home=app.settings.home, port=0)
    listener = listen(settings)
    port: int = listener.getsockname()[1]
    config = hypercorn_config(settings, listener)
    config.graceful_timeout = 0
    listener.close()
    await nursery.start(serve_http, app, config)
    return Site(app, port)


def head(path: str, size: int, headers: str = "") -> bytes:
    """The beginning of a request."""
    return (f"POST {path} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {size}\r\n\r\n").encode()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what real sockets and files do in their own time."""
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - nothing of it can tell us
            await trio.sleep(0.01)


async def answer(stream: trio.SocketStream) -> bytes:
    """All that comes until the other side closes."""
    received = b""
    try:
        async for part in stream:
            received += part
    except trio.BrokenResourceError:
        pass  # it was closed with our input unread; what was said before is here
    return received


def connections(nursery: trio.Nursery) -> int:
    """How many connections the server in `nursery` has tasks for."""
    (server,) = nursery.child_tasks
    return sum(
        "_run_handler" in task.name
        for lifespan in server.child_nurseries
        for task in lifespan.child_tasks
    )


async def push(stream: trio.SocketStream, parts: int) -> int:
    """Send until the other side closes; return how much was taken."""
    sent = 0
    try:
        for _ in range(parts):
            await stream.send_all(PART)
            sent += len(PART)
    except trio.BrokenResourceError:
        pass
    return sent


@pytest.mark.parametrize(("headers", "status"), [("X-StorageApi-Token: wrong\r\n", 401), ("", 401)])
async def test_an_upload_that_is_refused_is_not_read_and_holds_nothing(
    engine: FakeEngine, headers: str, status: int
) -> None:
    async with trio.open_nursery() as nursery:
        site = await served(make_app(engine), nursery)
        async with site.connection() as stream:
            size = 1000 * len(PART)
            await stream.send_all(head("/vaka/files?name=a", size, headers))
            said = b""

            async def listen_to_it() -> None:
                nonlocal said
                said = await answer(stream)

            async with trio.open_nursery() as both:
                both.start_soon(listen_to_it)
                sent = await push(stream, 1000)
            assert said.startswith(f"HTTP/1.1 {status} ".encode())
            assert sent < size
            assert not list((engine.config.home / "uploads").glob("*"))
            # the connection's tasks have ended: nothing waits for the rest of the body
            await until(lambda: connections(nursery) == 0)
        nursery.cancel_scope.cancel()


async def test_an_upload_that_breaks_off_leaves_nothing(engine: FakeEngine) -> None:
    async with trio.open_nursery() as nursery:
        site = await served(make_app(engine), nursery)
        async with site.connection() as stream:
            token = "X-StorageApi-Token: secret\r\n"
            await stream.send_all(head("/vaka/files?name=a", 100 * len(PART), token))
            await push(stream, 20)
            uploads = engine.config.home / "uploads"
            await until(lambda: list(uploads.glob("*")))
            await stream.aclose()
            await until(lambda: not list(uploads.glob("*")))
        nursery.cancel_scope.cancel()


async def test_a_slow_handler_slows_the_client(engine: FakeEngine) -> None:
    go_on = trio.Event()

    async def slow(call: Call) -> Response:
        await go_on.wait()
        size = 0
        async for part in call.body:
            size += len(part)
        return call.storage(size)

    app = make_app(engine)
    app.add_routes([Route("POST", "/slow", Access.PUBLIC, slow, "slow")])
    taken = 0
    said: list[Any] = []

    async def receive() -> Any:
        nonlocal taken
        taken += 1
        if taken > 500:
            await trio.sleep_forever()
        return {"type": "http.request", "body": PART, "more_body": taken < 500}

    async def send(message: Any) -> None:
        said.append(message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(app, scope("/slow", method="POST"), receive, send)
        await trio.testing.wait_all_tasks_blocked()
        assert taken <= body.WINDOW // len(PART) + 1
        go_on.set()
    assert taken >= 500
    assert b"".join(message.get("body", b"") for message in said) == str(500 * len(PART)).encode()


async def test_what_a_killed_server_left_is_removed(engine: FakeEngine) -> None:
    uploads = engine.config.home / "uploads"
    uploads.mkdir()
    (uploads / "left").write_bytes(b"half of it")
    make_app(engine)
    assert list(uploads.iterdir()) == []


# -- answers ---------------------------------------------------------------------------------------


async def test_a_file_is_gone_once_it_is_sent_or_not_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(PART * 10)
    file = body.TemporaryFile(path)
    assert not path.exists()
    assert file.size == 10 * len(PART)
    received = 0
    async with file as parts:
        async for part in parts:
            assert len(part) <= body.CHUNK
            received += len(part)
    assert received == 10 * len(PART)

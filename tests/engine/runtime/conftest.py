"""What the tests of container runtimes share: their own way to run, and a proxy that misbehaves."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

REQUEST = (b"GET ", b"POST ", b"DELETE ", b"HEAD ", b"PUT ")
CHUNK = 65_536


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `trio(run=...)` of a class win over the mark that trio_mode puts on each test."""
    for item in items:
        for mark in item.iter_markers("trio"):
            if mark.kwargs.get("run", trio.run) is not trio.run:
                item.add_marker(pytest.mark.trio(run=mark.kwargs["run"]), append=False)
                break


@dataclass(slots=True)
class _Fault:
    words: str
    after: int | None
    times: int
    holds: bool
    until: trio.Event | None
    answer: bytes
    passes: bool


@dataclass(slots=True, eq=False)
class _Link:
    """One connection of a client, and the proxy's own to the daemon for it."""

    client: trio.SocketStream
    daemon: trio.SocketStream
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    request: str = ""
    fault: _Fault | None = None
    head_seen: bool = False
    passed: int = 0


class Proxy:
    """Stands between a client and the Docker Engine, tells what was asked, and can misbehave."""

    def __init__(self, path: Path, daemon: str) -> None:
        self.address = f"unix://{path}"
        self.requests: list[str] = []
        self._faults: list[_Fault] = []
        self._acts: list[tuple[str, Callable[[], object]]] = []
        self._path = path
        self._daemon = daemon
        self._links: set[_Link] = set()
        self._listening = trio.CancelScope()

    def asked(self, words: str) -> list[str]:
        """The requests so far that contain `words`."""
        return [request for request in self.requests if words in request]

    def spoil(
        self,
        words: str,
        *,
        after: int | None = 0,
        times: int = 1,
        holds: bool = False,
        until: trio.Event | None = None,
        answer: bytes = b"",
        passes: bool = True,
    ) -> None:
        """Let the answers of the next `times` requests that contain `words` go wrong.

        Args:
            words: part of a request's method and path.
            after: bytes of the answer that are passed on before the connection is cut, the head not
                counted; None passes on nothing, not even the head.
            times: how many requests.
            holds: instead of cutting, let the client wait.
            until: let the client wait until this is set, and have its answer then.
            answer: sent instead of the daemon's, with `after=None`.
            passes: whether the daemon gets the request at all.
        """
        self._faults.append(_Fault(words, after, times, holds, until, answer, passes))

    def when(self, words: str, act: Callable[[], object]) -> None:
        """Let `act` be called at the next request that contains `words`."""
        self._acts.append((words, act))

    def cut(self, words: str = "") -> int:
        """Cut the connections whose last request contains `words`; how many they were."""
        links = [link for link in self._links if words in link.request]
        for link in links:
            link.scope.cancel()
        return len(links)

    def go_down(self) -> None:
        """Cut everything, and take no more connections."""
        self._listening.cancel()
        self.cut()

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take connections until `go_down`, or until cancelled; may be called again after."""
        self._listening = trio.CancelScope()
        listener = trio.socket.socket(trio.socket.AF_UNIX)
        with self._listening:
            try:
                await listener.bind(str(self._path))
                listener.listen(100)
                task_status.started()
                await trio.serve_listeners(self._link, [trio.SocketListener(listener)])
            finally:
                listener.close()
                self._path.unlink()

    async def _link(self, client: trio.SocketStream) -> None:
        daemon = await trio.open_unix_socket(self._daemon)
        link = _Link(client, daemon)
        self._links.add(link)
        with link.scope:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._to_daemon, link)
                    await self._to_client(link)
                    nursery.cancel_scope.cancel()
            finally:
                self._links.discard(link)
                client.socket.close()
                daemon.socket.close()

    async def _to_daemon(self, link: _Link) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in link.client:
                if data.startswith(REQUEST):
                    link.request = data.partition(b" HTTP/")[0].decode()
                    self.requests.append(link.request)
                    self._act(link.request)
                    link.fault, link.head_seen, link.passed = self._fault(link.request), False, 0
                if link.fault is not None and not link.fault.passes:
                    await link.client.send_all(link.fault.answer)
                    link.scope.cancel()
                    return
                await link.daemon.send_all(data)
        link.scope.cancel()  # the client has let go: the runtime never closes one side only

    async def _to_client(self, link: _Link) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            head = b""
            async for data in link.daemon:
                fault = link.fault
                if fault is not None and fault.until is not None:
                    await fault.until.wait()
                    fault = link.fault = None
                if fault is None:
                    await link.client.send_all(data)
                    continue
                if fault.holds:
                    await trio.sleep_forever()
                if fault.after is None:
                    await link.client.send_all(fault.answer)
                    return
                body = data
                if not link.head_seen:
                    head, separator, body = (head + data).partition(b"\r\n\r\n")
                    if not separator:
                        continue
                    link.head_seen = True
                    await link.client.send_all(head + separator)
                    head = b""
                allowed = body[: fault.after - link.passed]
                link.passed += len(allowed)
                await link.client.send_all(allowed)
                if link.passed == fault.after:
                    return

    def _act(self, request: str) -> None:
        due = [item for item in self._acts if item[0] in request]
        for item in due:
            self._acts.remove(item)
            item[1]()

    def _fault(self, request: str) -> _Fault | None:
        for fault in self._faults:
            if fault.times and fault.words in request:
                fault.times -= 1
                return fault
        return None


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    """A folder for sockets, whose paths may have 107 bytes only: pytest's own are longer."""
    folder = Path(tempfile.mkdtemp(prefix="vaka-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def proxy(
    docker_host: str, socket_folder: Path, nursery: trio.Nursery
) -> AsyncIterator[Proxy]:
    """A proxy to the Docker Engine, in order until told otherwise."""
    if not docker_host.startswith("unix://"):
        pytest.fail(f"these tests need a Docker Engine on a unix socket, not {docker_host}")
    proxy = Proxy(socket_folder / "proxy.sock", docker_host.removeprefix("unix://"))
    await nursery.start(proxy.serve)
    yield proxy
    proxy.go_down()

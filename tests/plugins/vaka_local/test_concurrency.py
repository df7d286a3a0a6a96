"""Loads, exports and cancellation at the same time, and the process dying in the middle."""

# ruff: noqa: ASYNC240 - small files

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.from_thread
import trio.testing
import trio.to_thread
from tests.plugins.vaka_local.conftest import SCOPE

from vaka.errors import MappingFailed
from vaka.models.storage import ExportOptions, LoadResult, TableLoad
from vaka_local.duck import Session
from vaka_local.loading import Loader
from vaka_local.locks import Locks
from vaka_local.records import Known
from vaka_local.storage import LocalStorage

A, B = "in.c-main.a", "in.c-main.b"


async def load(storage: LocalStorage, path: Path, content: str, table: str, **options: Any) -> None:
    path.write_text(content)
    await storage.tables.load(SCOPE, [TableLoad(table, (path,), **options)])


async def values(storage: LocalStorage, table: str) -> list[str]:
    _, found = await storage.tables.preview(SCOPE, table, ExportOptions(limit=10_000))
    return sorted(str(row[0]) for row in found)


class Gate:
    """Holds the threads that come to it until its block ends."""

    def __init__(self) -> None:
        self.reached = trio.Event()
        self._open = threading.Event()

    def __call__(self) -> None:
        trio.from_thread.run_sync(self.reached.set)
        self._open.wait()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.set()  # also when a test fails: no thread is left behind


@contextmanager
def before_commit(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> Iterator[None]:
    """While this is open, changes call `action` in their thread before they are committed."""
    commit = Session.commit

    def gated(self: Session) -> None:
        action()
        commit(self)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "commit", gated)
        yield


async def test_nobody_waits_for_a_load_but_writers_of_its_table(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for table in (A, B):
        await load(storage, tmp_path / "csv", "id\n1\n", table)
    done: list[str] = []

    async def change(name: str, content: str, table: str) -> None:
        await load(storage, tmp_path / name, content, table, incremental=True)
        done.append(name)

    async with trio.open_nursery() as nursery:
        with Gate() as gate:
            with before_commit(monkeypatch, gate):
                nursery.start_soon(change, "first", "id\n2\n", A)
                await gate.reached.wait()
            # the first load has written and not committed; everything else goes on
            await storage.tables.export(SCOPE, A, ExportOptions(), tmp_path / "out")
            assert (tmp_path / "out").read_bytes() == b'"id"\n"1"\n'
            await change("other table", "id\n2\n", B)
            await change("new table", "id\n2\n", "in.c-main.c")
            await change("new bucket", "id\n2\n", "out.c-new.c")
            nursery.start_soon(change, "second", "id\n3\n", A)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert done == ["other table", "new table", "new bucket"]

    assert done[3:] == ["first", "second"]
    assert await values(storage, A) == ["1", "2", "3"]


async def test_a_bucket_is_not_dropped_under_a_load(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await load(storage, tmp_path / "csv", "id\n1\n", A)
    dropped = trio.Event()

    async def drop() -> None:
        await storage.tables.drop_bucket(SCOPE, "in.c-main", force=True)
        dropped.set()

    async with trio.open_nursery() as nursery:
        with Gate() as gate:
            with before_commit(monkeypatch, gate):
                nursery.start_soon(load, storage, tmp_path / "new", "id\n1\n", B)
                await gate.reached.wait()
            nursery.start_soon(drop)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not dropped.is_set()

    assert await storage.tables.list_tables(SCOPE) == []


async def test_loads_into_one_new_bucket_do_not_wait_for_each_other(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trio.open_nursery() as nursery:
        with Gate() as first, Gate() as second:
            gates = iter([first, second])

            def at_the_next_gate() -> None:
                next(gates)()

            with before_commit(monkeypatch, at_the_next_gate):
                for name, table in (("a", A), ("b", B)):
                    nursery.start_soon(load, storage, tmp_path / name, "id\n1\n", table)
                await first.reached.wait()
                await second.reached.wait()  # both have made the bucket

    assert [bucket.id for bucket in await storage.tables.list_buckets(SCOPE)] == ["in.c-main"]
    await storage.tables.drop_bucket(SCOPE, "in.c-main", force=True)
    assert await storage.tables.list_buckets(SCOPE) == []


async def test_cancelling_interrupts_a_statement_and_undoes_the_load(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await load(storage, tmp_path / "csv", "id\n1\n", A)
    running = trio.Event()
    run = Loader.run

    def run_for_ever(self: Loader) -> tuple[LoadResult, Known | None]:
        result = run(self)
        trio.from_thread.run_sync(running.set)
        self.session.rows("SELECT sum(hash(i)) FROM range(1000000000000000) AS r(i)")
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Loader, "run", run_for_ever)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load, storage, tmp_path / "csv", "id\n2\n", A)
            nursery.start_soon(load, storage, tmp_path / "csv", "id\n2\n", A)  # waits for the lock
            await running.wait()
            nursery.cancel_scope.cancel()

    assert await values(storage, A) == ["1"]
    await load(storage, tmp_path / "csv", "id\n3\n", A)  # the lock is free
    assert await values(storage, A) == ["3"]


async def test_cancelling_an_export_leaves_no_file(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await load(storage, tmp_path / "csv", "id\n1\n", A)
    target = tmp_path / "out"
    value = Session.value

    with trio.CancelScope() as scope:

        def cancelled(self: Session, *arguments: Any) -> Any:
            trio.from_thread.run_sync(scope.cancel)
            assert self._stop._asked.wait(30)  # a bound, no measure
            return value(self, *arguments)

        monkeypatch.setattr(Session, "value", cancelled)
        await storage.tables.export(SCOPE, A, ExportOptions(), target)

    assert scope.cancelled_caught
    assert not target.exists()


async def test_cancelling_after_the_commit_began_is_too_late(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Session._run
    (tmp_path / "csv").write_text("id\n1\n")

    with trio.CancelScope() as scope:

        def cancelled(self: Session, statement: str, parameters: Any) -> Any:
            if statement == "COMMIT":
                trio.from_thread.run_sync(scope.cancel)
            return run(self, statement, parameters)

        monkeypatch.setattr(Session, "_run", cancelled)
        (result,) = await storage.tables.load(SCOPE, [TableLoad(A, (tmp_path / "csv",))])
        assert result.total_rows == 1

    assert not scope.cancelled_caught
    assert await values(storage, A) == ["1"]


async def test_many_changes_at_once_lose_nothing(storage: LocalStorage, tmp_path: Path) -> None:
    """Upserts go by row number: no other change may move rows under them."""
    size, rounds = 3_000, 6
    everything = "id,v\n" + "".join(f"{number},0\n" for number in range(size))
    tables = [f"in.c-main.t{number}" for number in range(4)]

    async def churn(table: str) -> None:
        path = tmp_path / table
        await load(storage, path, everything, table, primary_key=("id",))
        for turn in range(1, rounds + 1):
            changed = "".join(f"{number},{turn}\n" for number in range(0, size, turn + 1))
            await load(storage, path, f"id,v\n{changed}", table, incremental=True)
            with pytest.raises(MappingFailed):
                await load(storage, path, f"id,v\n{changed}x\n", table, incremental=True)
            target = tmp_path / f"{table}-{turn}"
            await storage.tables.export(SCOPE, table, ExportOptions(), target)
            lines = target.read_text().splitlines()[1:]
            assert len(lines) == len(set(lines)) == size

    async with trio.open_nursery() as nursery:
        for table in tables:
            nursery.start_soon(churn, table)

    expected = []
    for number in range(size):
        last = max((turn for turn in range(1, rounds + 1) if number % (turn + 1) == 0), default=0)
        expected.append((str(number), str(last)))
    for table in tables:
        _, found = await storage.tables.preview(SCOPE, table, ExportOptions(limit=2 * size))
        assert sorted(found, key=lambda row: int(str(row[0]))) == expected


# -- death ---------------------------------------------------------------------------------------

CHILD = """
import sys, time, trio
from pathlib import Path
from vaka.models.storage import StorageScope, TableLoad
from vaka_local.duck import Session
from vaka_local.storage import LocalStorage

home, path, where = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def stop():
    print("here", flush=True)
    time.sleep(3600)

async def main():
    storage = LocalStorage(home)
    await storage.open()
    await storage.tables.list_buckets(StorageScope("1"))
    if where in {"before", "together"}:
        Session.commit = lambda self: stop()
    elif where == "during":
        print("here", flush=True)
    load = TableLoad("in.c-main.a", (path,), primary_key=("id",), import_key="job-1")
    loads = [load]
    if where == "together":
        loads.insert(0, TableLoad("in.c-main.b", (path,), import_key="job-1"))
    await storage.tables.load(StorageScope("1"), loads)
    stop()

trio.run(main)
"""


def killed(home: Path, path: Path, where: str, delay: float = 0.0) -> None:
    """Load a table in another process, and kill it `delay` seconds after it came to a place."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(home), str(path), where],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        select.select([child.stdout], [], [], delay)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


async def after_death(home: Path) -> tuple[int, bool]:
    """How many rows the table has, and whether the load is remembered."""
    storage = LocalStorage(home)
    await storage.open()
    _, rows = await storage.tables.preview(SCOPE, A, ExportOptions(limit=1_000_000))
    (result,) = await storage.tables.load(
        SCOPE, [TableLoad(A, (), columns=("id", "v"), incremental=True, import_key="job-1")]
    )
    await storage.aclose()
    assert list((home / "tmp").iterdir()) == []  # what the dead one left is swept up
    return len(rows), result.repeated


async def prepared(home: Path, tmp_path: Path) -> Path:
    storage = LocalStorage(home)
    await storage.open()
    await load(storage, tmp_path / "csv", "id,v\n1,old\n", A, primary_key=("id",))
    await storage.aclose()
    path = tmp_path / "large"
    path.write_text("id,v\n" + "".join(f"{number},new\n" for number in range(200_000)))
    return path


@pytest.mark.scenario("storage-api", 48)
async def test_a_load_that_was_killed_before_its_commit_left_nothing(
    home: Path, tmp_path: Path
) -> None:
    path = await prepared(home, tmp_path)

    await trio.to_thread.run_sync(killed, home, path, "before")

    assert await after_death(home) == (1, False)


@pytest.mark.scenario("storage-api", 48)
async def test_a_load_that_was_acknowledged_survives(home: Path, tmp_path: Path) -> None:
    path = await prepared(home, tmp_path)

    await trio.to_thread.run_sync(killed, home, path, "after")

    assert await after_death(home) == (200_000, True)


@pytest.mark.scenario("storage-api", 48)
@pytest.mark.parametrize("delay", [0.0, 0.03, 0.1, 0.2, 0.3])
async def test_a_load_that_was_killed_anywhere_is_whole_or_not_there(
    home: Path, tmp_path: Path, delay: float
) -> None:
    path = await prepared(home, tmp_path)

    await trio.to_thread.run_sync(killed, home, path, "during", delay)

    assert await after_death(home) in [(1, False), (200_000, True)]


async def test_tables_of_one_load_that_was_killed_are_all_as_before(
    home: Path, tmp_path: Path
) -> None:
    path = await prepared(home, tmp_path)

    await trio.to_thread.run_sync(killed, home, path, "together")

    storage = LocalStorage(home)
    await storage.open()
    try:
        assert [table.id for table in await storage.tables.list_tables(SCOPE)] == [A]
        loads = [TableLoad(table, (path,), import_key="job-1") for table in (B, A)]
        results = await storage.tables.load(SCOPE, loads)
        assert [result.repeated for result in results] == [False, False]
        assert len(await values(storage, B)) == len(await values(storage, A)) == 10_000
    finally:
        await storage.aclose()


# -- locks ---------------------------------------------------------------------------------------


async def test_a_lock_is_shared_or_had_alone_in_the_order_of_asking() -> None:
    locks = Locks()
    order: list[str] = []

    async def hold(name: str, release: trio.Event, **names: list[str]) -> None:
        async with locks.hold(**names):
            order.append(name)
            await release.wait()

    events = {name: trio.Event() for name in ("r1", "r2", "w", "r3")}
    async with trio.open_nursery() as nursery:
        for name, kind in (
            ("r1", "shared"),
            ("r2", "shared"),
            ("w", "exclusive"),
            ("r3", "shared"),
        ):
            nursery.start_soon(partial(hold, name, events[name], **{kind: ["x"]}))
            await trio.testing.wait_all_tasks_blocked()
        assert order == ["r1", "r2"]
        events["r1"].set()
        await trio.testing.wait_all_tasks_blocked()
        assert order == ["r1", "r2"]
        events["r2"].set()
        await trio.testing.wait_all_tasks_blocked()
        assert order == ["r1", "r2", "w"]
        events["w"].set()
        await trio.testing.wait_all_tasks_blocked()
        assert order == ["r1", "r2", "w", "r3"]
        events["r3"].set()
    assert locks._locks == {}


async def test_who_gives_up_waiting_for_a_lock_is_forgotten() -> None:
    locks = Locks()
    entered: list[str] = []

    async def enter(name: str, **names: list[str]) -> None:
        async with locks.hold(**names):
            entered.append(name)

    async with locks.hold(shared=["x"]):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(enter, "writer", exclusive=["x"]))
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as readers:
                readers.start_soon(partial(enter, "reader", shared=["x"]))
                await trio.testing.wait_all_tasks_blocked()
                assert entered == []
                nursery.cancel_scope.cancel()
        assert entered in ([], ["reader"])
    await enter("late", exclusive=["x"])
    assert entered[-1] == "late"
    assert locks._locks == {}

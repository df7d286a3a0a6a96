"""DuckDB: one instance for all, the file of each project or branch attached when it is first used.

One instance has one bound on memory and one on threads, however many projects there are.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from vaka.errors import ApplicationError, DiskFull
from vaka_local import schema, threads
from vaka_local.disk import NO_ROOM
from vaka_local.threads import Stop, Stopped

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")

_LOADS: Final = 4
_EXPORTS: Final = 4
_LOOKUPS: Final = 8
"""How many of each run at a time. They queue apart: exports and look-ups never wait for loads."""
_LEAST_MEMORY: Final = 512 << 20


class ReadFailed(Exception):
    """DuckDB's CSV reader refused a file; the message is DuckDB's."""


class Session:
    """A transaction on a project's tables, for use in one thread."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, alias: str, stop: Stop) -> None:
        self._cursor = cursor
        self._stop = stop
        self._alias = alias

    def check(self) -> None:
        """Raise if the work is to end."""
        self._stop.check()

    def table(self, name: str) -> str:
        """A user's table in SQL."""
        return f"{quote(self._alias)}.{schema.DATA}.{quote(name)}"

    def snapshot(self, number: int) -> str:
        """A snapshot's rows in SQL."""
        return f"{quote(self._alias)}.{schema.SNAPSHOTS}.{quote(str(number))}"

    def meta(self, name: str) -> str:
        """A table of ours in SQL."""
        return f"{quote(self._alias)}.{schema.META}.{quote(name)}"

    def rows(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and give its rows."""
        with self._stop.interrupting(self._cursor.interrupt):
            return self._run(statement, parameters)

    def read(self, statement: str, parameters: Sequence[object] = ()) -> int:
        """Run a statement that writes what a CSV reader gives, and say how many rows.

        Raises:
            ReadFailed: the reader refused the file.
        """
        import duckdb  # noqa: PLC0415 - imported by now

        try:
            return int(self.value(statement, parameters))
        except ApplicationError as error:
            cause = error.__cause__
            if isinstance(cause, (duckdb.InvalidInputException, duckdb.ConversionException)) or (
                isinstance(cause, duckdb.IOException) and "gzip" in str(cause).lower()
            ):
                raise ReadFailed(str(cause)) from error
            raise

    def value(self, statement: str, parameters: Sequence[object] = ()) -> Any:
        """The first value of the first row; for statements that write it is how many rows."""
        return self.rows(statement, parameters)[0][0]

    def commit(self) -> None:
        """Make everything durable. From here on the work cannot be stopped."""
        self._stop.check()
        self._run("COMMIT", ())

    def _run(self, statement: str, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        import duckdb  # noqa: PLC0415 - imported by now

        try:
            return self._cursor.execute(statement, list(parameters)).fetchall()
        except duckdb.InterruptException as error:
            raise Stopped from error
        except duckdb.Error as error:
            self._stop.check()
            raise _translated(error) from error


class Duck:
    """The tables of all projects. Nothing is opened before it is used."""

    def __init__(self, home: Path, *, memory_bytes: int | None, threads: int | None) -> None:
        """Keep files in `home`.

        `memory_bytes` bounds what DuckDB takes for all projects together, a quarter of the machine's
        when None; what does not fit goes to a temporary folder in `home`. `threads` is how many
        compute, None for one a core.
        """
        self._home = home
        self._memory = memory_bytes or max(_LEAST_MEMORY, _machine_memory() // 4)
        self._threads = threads or len(os.sched_getaffinity(0))
        self._guard = threading.Lock()
        self._instance: duckdb.DuckDBPyConnection | None = None
        self._locks: dict[str, int] = {}
        self._scratch: tuple[Path, int] | None = None
        self._limits = {
            "load": trio.CapacityLimiter(_LOADS),
            "export": trio.CapacityLimiter(_EXPORTS),
            "lookup": trio.CapacityLimiter(_LOOKUPS),
        }

    @property
    def scratch(self) -> Path:
        """Folder for temporary files, once something is open."""
        if self._scratch is None:
            raise ApplicationError("The table store is closed.")
        return self._scratch[0]

    async def run(self, space: str, work: Callable[[Session], T], kind: str) -> T:
        """Call `work` with a transaction, in a thread; what it does not commit is undone.

        `space` is what `names.space` gives for a project or one of its branches.
        `kind` is `load`, `export` or `lookup`. Cancelling interrupts the statement that runs, undoes
        the transaction, and returns when that is done; after the commit it is too late for it.
        """

        def in_thread(stop: Stop) -> T:
            with self._session(space, stop) as session:
                return work(session)

        return await threads.run(in_thread, self._limits[kind])

    @contextmanager
    def _session(self, space: str, stop: Stop) -> Generator[Session, None, None]:
        cursor, alias = self._attached(space)
        try:
            cursor.execute("BEGIN")
            yield Session(cursor, alias, stop)
        finally:
            cursor.close()  # undoes what was not committed

    def _attached(self, space: str) -> tuple[duckdb.DuckDBPyConnection, str]:
        alias = _alias(space)
        with self._guard:
            if self._instance is None:
                self._instance = self._start()
            if space not in self._locks:
                self._attach(self._instance, space, alias)
            return self._instance.cursor(), alias

    def _start(self) -> duckdb.DuckDBPyConnection:
        import duckdb  # noqa: PLC0415 - 0.1 s and 30 MB that an idle server need not pay

        scratch, _ = self._scratch = _scratch(self._home / "tmp")
        return duckdb.connect(
            ":memory:",
            config={
                "memory_limit": f"{max(1, self._memory >> 20)}MiB",
                "threads": self._threads,
                "temp_directory": str(scratch / "duckdb"),
                # tables have no order, and keeping one costs a third of the speed of loads
                "preserve_insertion_order": False,
                # it would know files by path and time, and paths of descriptors are used again
                "enable_external_file_cache": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "allow_community_extensions": False,
                "python_enable_replacements": False,
            },
        )

    def _attach(self, instance: duckdb.DuckDBPyConnection, space: str, alias: str) -> None:
        import duckdb  # noqa: PLC0415

        path = self._path(space)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _locked(path)
        try:
            instance.execute(f"ATTACH {_literal(str(path))} AS {quote(alias)}")
            try:
                schema.migrate(instance, quote(alias), path)
            except BaseException:
                instance.execute(f"DETACH {quote(alias)}")
                raise
        except duckdb.Error as error:
            os.close(lock)
            if "Could not set lock" in str(error):
                holder = re.search(r"PID (\d+)", str(error))
                raise _in_use(path, holder[1] if holder else "") from error
            kind = DiskFull if is_for_want_of_room(error) else ApplicationError
            raise kind(
                f"The table database {path} cannot be opened: {_first_line(error)}"
            ) from error
        except BaseException:
            os.close(lock)
            raise
        self._locks[space] = lock

    def _path(self, space: str) -> Path:
        return self._home / "tables" / f"{space}.duckdb"

    async def drop(self, space: str) -> None:
        """Remove the file of a branch. Nothing may be running in it."""
        await trio.to_thread.run_sync(self._drop, space)

    def _drop(self, space: str) -> None:
        import duckdb  # noqa: PLC0415

        path = self._path(space)
        with self._guard:
            lock = self._locks.get(space)
            if lock is None:
                if not path.exists():
                    return
                lock = _locked(path)
            elif self._instance is not None:
                try:
                    self._instance.execute(f"DETACH {quote(_alias(space))}")
                except duckdb.Error as error:
                    raise _translated(error) from error
                del self._locks[space]
            try:
                for name in (f"{path}.wal", str(path), f"{path}.lock"):
                    Path(name).unlink(missing_ok=True)
            finally:
                os.close(lock)

    async def aclose(self) -> None:
        """Close all projects' files. Nothing may be running."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._close)

    def _close(self) -> None:
        with self._guard:
            if self._instance is not None:
                self._instance.close()  # writes what is in the logs to the files
                self._instance = None
            for lock in self._locks.values():
                os.close(lock)
            self._locks.clear()
            if self._scratch is not None:
                shutil.rmtree(self._scratch[0], ignore_errors=True)
                os.close(self._scratch[1])
                self._scratch = None


def _alias(space: str) -> str:
    return f"project_{space}"


def quote(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _translated(error: duckdb.Error) -> ApplicationError:
    import duckdb  # noqa: PLC0415

    if isinstance(error, duckdb.OutOfMemoryException):
        return ApplicationError(
            "The table store has not enough memory or disk space for this. Give it more with "
            f"memory_bytes in the storage URL, or free space in its folder. ({_first_line(error)})"
        )
    if is_for_want_of_room(error):
        return DiskFull(
            f"The table store has no room: {_first_line(error)}. Free space on its disk."
        )
    return ApplicationError(f"The table store failed: {_first_line(error)}")


def is_for_want_of_room(error: duckdb.Error) -> bool:
    """Whether a disk is full, or somebody's part of it; DuckDB has the system's words for it only."""
    return any(os.strerror(number) in str(error) for number in NO_ROOM)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _locked(path: Path) -> int:
    """A descriptor that holds the lock of a database file.

    DuckDB's own lock keeps other processes out, but not another engine in this one: that would write
    to the same file, and ruin it.
    """
    fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise _in_use(path, owner) from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _in_use(path: Path, owner: str = "") -> ApplicationError:
    who = f"process {owner}" if re.fullmatch(r"\d+", owner) else "another process"
    return ApplicationError(
        f"The table database {path} is in use by {who}. Only one process can have it: stop that one, "
        "or let it do the work, for example through its HTTP API (--url)."
    )


def _scratch(parent: Path) -> tuple[Path, int]:
    """A new temporary folder and a descriptor that locks it; those of dead processes are removed."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in parent.glob("tables-*"):
        with suppress(OSError):
            fd = os.open(old, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old)
            finally:
                os.close(fd)
    path = Path(tempfile.mkdtemp(prefix="tables-", dir=parent))
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return path, fd


def _machine_memory() -> int:
    """Bytes that this process may use: the machine's, or its control group's when that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            total = min(total, int(Path("/sys/fs/cgroup", name).read_text()))
    return total

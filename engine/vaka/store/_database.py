"""Connections, transactions and errors: what blocks, and therefore runs in worker threads only.

All writes of a store go through `Database.commit`, which runs a batch of them in one transaction,
each behind a savepoint of its own. On SQLite that is the only writer of the process. On PostgreSQL
several engines write at a time; what changes the queue takes one advisory lock first, so that a claim
never sees half of a change, whoever makes it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.pool import QueuePool

from vaka.errors import ApplicationError, EngineError, InvalidInput, StoreUnavailable
from vaka.store._migrate import migrate
from vaka.store.schema import counters, from_micros
from vaka.store.values import Topic

log = logging.getLogger(__name__)
T = TypeVar("T")

LOCK_SCHEMA = 0x76616B6101
"""Advisory lock of PostgreSQL: held while migrations are looked at and applied."""
LOCK_QUEUE = 0x76616B6102
"""Advisory lock of PostgreSQL: held by a transaction that changes the queue."""
ATTEMPTS = 3
"""Tries of a batch that failed for no fault of its own, such as a deadlock."""

# deadlock, serialization failure: the database asks to try again
_RETRY_STATES = {"40P01", "40001"}
_ADVICE = {
    "28P01": "check the user and the password in the URL",
    "28000": "check the user in the URL, and who may log in to the server",
    "3D000": "create the database, or correct its name in the URL",
    "42501": "grant the user the right to create and use tables there",
    "53100": "free disk space on the database server",
    "53300": "raise the server's max_connections, or run fewer engines",
    "55P03": "look for a session that holds its locks",
    "57014": "look for what keeps the server busy",
}


@dataclass
class Transaction:
    """One request's view of the transaction that it shares with others."""

    connection: Connection
    clock: Callable[[], datetime]
    """This moment, the same for the whole transaction."""
    ids: Iterator[int]
    """Fresh numbers, as many as the request has asked for."""
    topics: set[Topic] = field(default_factory=set)
    """Whom to wake once it is committed."""


@dataclass
class Request(Generic[T]):
    """One write: what to do, and what became of it."""

    action: Callable[[Transaction], T]
    queue: bool = False
    """Whether it changes what may be claimed."""
    ids: int = 0
    """How many fresh numbers it needs."""
    result: T | None = None
    error: Exception | None = None
    topics: frozenset[Topic] = frozenset()

    def fail(self, error: Exception) -> None:
        self.result, self.error, self.topics = None, error, frozenset()


class Database:
    """The two pools of one store. Every method blocks."""

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], datetime] | None,
        readers: int,
        patience: float,
    ) -> None:
        parsed = _checked(url)
        self.is_postgresql = parsed.get_backend_name() == "postgresql"
        if self.is_postgresql:
            parsed = parsed.update_query_dict(
                {key: str(value) for key, value in _KEEPALIVE.items() if key not in parsed.query}
            )
        self._url = parsed
        self._clock = clock
        self._patience = patience
        self._writers = self._engine(pool_size=1, writes=True)
        self._readers = self._engine(pool_size=readers, writes=False)
        self.own_pids: set[int] = set()
        """Backends of PostgreSQL that this store writes with: it knows its own changes already."""

    def __str__(self) -> str:
        return self._url.set(query={}).render_as_string(hide_password=True)

    def open(self) -> None:
        """Make what is missing of the schema. Safe when several do it at once.

        Raises:
            StoreUnavailable: the database does not answer, or is newer than this code.
        """
        try:
            if not self.is_postgresql:
                self._use_write_ahead_log()
            with self._writers.begin() as connection:
                if self.is_postgresql:
                    _advisory_lock(connection, LOCK_SCHEMA)
                migrate(connection, str(self))
        except exc.DBAPIError as error:
            raise self._translate(error) from error

    def close(self) -> None:
        self._writers.dispose()
        self._readers.dispose()

    def read(self, action: Callable[[Connection], T]) -> T:
        """What `action` finds, in one snapshot on SQLite."""
        for attempt in count(1):
            try:
                with self._readers.connect() as connection, connection.begin():
                    return action(connection)
            except exc.DBAPIError as error:
                # reading again harms nobody: a restarted server drops every connection of the pool
                if error.connection_invalidated and attempt < ATTEMPTS:
                    continue
                raise self._translate(error) from error
            except _UNSUITABLE as error:
                raise InvalidInput("The job store cannot look for such a value.") from error
        raise AssertionError

    def data_version(self) -> int | None:
        """A number that changes when another process has written; None where it cannot be told."""
        if self.is_postgresql:
            return None
        try:
            # on the writers' connection, because it does not count what was written through it
            with self._writers.connect() as connection:
                driver = connection.connection.driver_connection
                row = driver.execute("PRAGMA data_version").fetchone()  # type: ignore[union-attr]
        except exc.DBAPIError as error:
            raise self._translate(error) from error
        return int(row[0])

    def commit(self, batch: Sequence[Request[Any]]) -> None:
        """Do all requests of a batch in one transaction and tell each what became of it.

        A request that fails is undone alone. When the transaction itself fails, so have all.
        """
        for attempt in count(1):
            try:
                self._commit(batch)
            except Exception as error:  # noqa: BLE001 - handed to everybody in the batch
                if attempt < ATTEMPTS and _is_worth_another_try(error):
                    log.info("store.retried", extra={"attempt": attempt})
                    continue
                for request in batch:
                    request.fail(self._told(error))
            return

    def connect_listener(self) -> Any:
        """A connection of psycopg's that listens to what other engines notify."""
        import psycopg  # noqa: PLC0415 - an extra

        arguments, options = self._readers.dialect.create_connect_args(self._url)
        try:
            connection = psycopg.connect(*arguments, **{**options, "autocommit": True})
        except psycopg.Error as error:
            raise self._unavailable(error) from error
        try:
            connection.execute(f"LISTEN {CHANNEL}")
        except BaseException as error:
            connection.close()
            if isinstance(error, psycopg.Error):
                raise self._unavailable(error) from error
            raise
        return connection

    # -- transactions ----------------------------------------------------------------------------

    def _commit(self, batch: Sequence[Request[Any]]) -> None:
        with self._writers.connect() as connection, connection.begin() as transaction:
            driver: Any = connection.connection.driver_connection
            if self.is_postgresql:
                self.own_pids.add(driver.info.backend_pid)
                if any(request.queue for request in batch):
                    _advisory_lock(connection, LOCK_QUEUE)
            ids = _fresh_ids(connection, sum(request.ids for request in batch))
            clock = cache(lambda: self._now(connection))
            alone = len(batch) == 1
            for request in batch:
                if not alone:
                    driver.execute("SAVEPOINT request")
                try:
                    self._do(request, connection, clock, ids)
                except _BROKEN:
                    raise
                except Exception as error:  # noqa: BLE001 - handed to whoever asked for it
                    request.fail(self._told(error))
                    if alone:
                        transaction.rollback()
                        return
                    driver.execute("ROLLBACK TO SAVEPOINT request")
                if not alone:
                    driver.execute("RELEASE SAVEPOINT request")
            if self.is_postgresql:
                _notify(connection, {topic for request in batch for topic in request.topics})

    @staticmethod
    def _do(
        request: Request[Any],
        connection: Connection,
        clock: Callable[[], datetime],
        ids: Iterator[int],
    ) -> None:
        own = [next(ids) for _ in range(request.ids)]
        transaction = Transaction(connection, clock, iter(own))
        request.error = None
        request.result = request.action(transaction)
        request.topics = frozenset(transaction.topics)

    def _now(self, connection: Connection) -> datetime:
        if self._clock is not None:
            return self._clock()
        if self.is_postgresql:
            # the database's clock: leases are compared between hosts whose own clocks may differ
            micros = connection.execute(_POSTGRESQL_NOW).scalar_one()
            return from_micros(int(micros))
        return datetime.now(UTC)

    # -- connections -----------------------------------------------------------------------------

    def _engine(self, *, pool_size: int, writes: bool) -> Engine:
        options: dict[str, Any] = {
            "poolclass": QueuePool,
            "pool_size": pool_size,
            "max_overflow": 0,
            "pool_timeout": self._patience,
            "hide_parameters": True,  # they may be anybody's data, and errors are logged
        }
        if not self.is_postgresql:
            engine = sa.create_engine(
                self._url,
                connect_args={"timeout": self._patience, "check_same_thread": False},
                **options,
            )
            event.listen(engine, "connect", _prepare_sqlite if writes else _prepare_sqlite_reader)
            event.listen(engine, "begin", _begin_immediate if writes else _begin)
            return engine
        engine = sa.create_engine(
            self._url,
            pool_pre_ping=writes,
            isolation_level="READ COMMITTED",
            **options,
        )
        milliseconds = int(self._patience * 1000)

        def prepare(connection: Any, _record: Any) -> None:
            # a session that hangs must not hang the other engines with it
            for name, value in (
                ("lock_timeout", milliseconds),
                ("statement_timeout", 4 * milliseconds),
                ("idle_in_transaction_session_timeout", 4 * milliseconds),
            ):
                connection.execute(f"SET SESSION {name} = {value}")
            connection.commit()

        event.listen(engine, "connect", prepare)
        return engine

    def _use_write_ahead_log(self) -> None:
        """Switch the file to WAL, which SQLite refuses while somebody else does the same."""
        deadline = monotonic() + self._patience
        while True:
            try:
                with self._writers.connect() as connection:
                    driver: Any = connection.connection.driver_connection
                    row = driver.execute("PRAGMA journal_mode = WAL").fetchone()
            except Exception as error:
                translated = self._told(error)
                if monotonic() > deadline or "lock" not in str(error):
                    raise translated from error
                sleep(0.01)
                continue
            if row[0] != "wal":
                raise StoreUnavailable(
                    f"The job store {self} cannot use a write-ahead log there; put it on a local disk."
                )
            return

    # -- errors ----------------------------------------------------------------------------------

    def _told(self, error: Exception) -> Exception:
        """What the caller gets for an error that one request made."""
        if isinstance(error, EngineError):
            return error
        if isinstance(error, (exc.DataError, *_UNSUITABLE)):
            return _caused(
                InvalidInput(
                    "The job store cannot keep a value: it has characters or a size that "
                    "no text or number may have there."
                ),
                error,
            )
        if isinstance(error, exc.DBAPIError):
            return _caused(self._translate(error), error)
        if isinstance(error, self._driver_error):
            return _caused(self._unavailable(error), error)
        return error

    @property
    def _driver_error(self) -> type[Exception]:
        kind: type[Exception] = self._writers.dialect.loaded_dbapi.Error
        return kind

    def _translate(self, error: exc.DBAPIError) -> EngineError:
        """An error of the database as one of ours, with what to do about it."""
        if isinstance(error, exc.DataError):
            return InvalidInput("The job store cannot look for such a value.")
        if isinstance(error, exc.IntegrityError | exc.ProgrammingError):
            return ApplicationError(f"The job store {self} refused what it was asked: {error.orig}")
        return self._unavailable(error.orig)

    def _unavailable(self, error: BaseException | None) -> StoreUnavailable:
        text = str(error).strip()
        advice = self._advice(error, text)
        return StoreUnavailable(f"The job store {self} does not answer: {text}; {advice}.")

    def _advice(self, error: BaseException | None, text: str) -> str:
        if self.is_postgresql:
            state = getattr(error, "sqlstate", None)
            if state is None and "does not exist" in text:
                state = "3D000"  # the library that connects gives no state
            return _ADVICE.get(state or "", "check that the server runs and can be reached")
        if "full" in text or self._is_disk_full():
            return "free disk space there"
        if "lock" in text or "busy" in text:
            return f"another process has held its lock for {self._patience:g} s: find and end it"
        if "unable to open" in text or "readonly" in text:
            return "check that its folder exists and may be written to"
        if "malformed" in text or "not a database" in text:
            return "the file is damaged: restore it from a backup"
        return "check the disk that it is on"

    def _is_disk_full(self) -> bool:
        """Whether there is no room beside SQLite's file: it does not always say so itself."""
        try:
            return shutil.disk_usage(Path(str(self._url.database)).parent).free == 0
        except OSError:
            return False


_KEEPALIVE: dict[str, Any] = {
    # a host that vanished is noticed within about a minute, not in hours
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
# errors after which the transaction, and with it the whole batch, is gone
_BROKEN = (exc.OperationalError, exc.InterfaceError, exc.InternalError)
# what a driver says of a text that is none, or of a number that is too large
_UNSUITABLE = (UnicodeEncodeError, OverflowError)
_POSTGRESQL_NOW = sa.text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
_TAKE_IDS = (
    sa.update(counters)
    .where(counters.c.name == "ids")
    .values(value=counters.c.value + sa.bindparam("count"))
    .returning(counters.c.value)
)


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
    except exc.ArgumentError as error:
        raise StoreUnavailable(
            "The job store's URL cannot be read; write sqlite:////path/to/vaka.db or "
            "postgresql+psycopg://user@host/database."
        ) from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        try:
            import psycopg  # noqa: F401, PLC0415 - an extra
        except ImportError as error:
            raise StoreUnavailable(
                "A job store on PostgreSQL needs psycopg; install vaka[postgresql]."
            ) from error
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise StoreUnavailable(f"A job store cannot be on {backend}; use SQLite or PostgreSQL.")
    if not parsed.database or parsed.database == ":memory:":
        raise StoreUnavailable("A job store needs a file; write sqlite:////path/to/vaka.db.")
    return parsed


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where we say, not where Python guesses
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _prepare_sqlite_reader(connection: Any, record: Any) -> None:
    _prepare_sqlite(connection, record)
    connection.execute("PRAGMA query_only = ON")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _advisory_lock(connection: Connection, key: int) -> None:
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.literal(key, sa.BigInteger))))


def _fresh_ids(connection: Connection, wanted: int) -> Iterator[int]:
    # outside of any savepoint: an undone request must not give its numbers to another
    if not wanted:
        return iter(())
    last = connection.execute(_TAKE_IDS, {"count": wanted}).scalar_one()
    return iter(range(last - wanted + 1, last + 1))


CHANNEL = "vaka_store"
"""Where engines on one PostgreSQL tell each other what has changed."""


def _notify(connection: Connection, topics: set[Topic]) -> None:
    for topic in topics:
        payload = topic if isinstance(topic, str) else f"{topic[0]}:{topic[1]}"
        connection.execute(sa.select(sa.func.pg_notify(CHANNEL, payload)))


def _is_worth_another_try(error: Exception) -> bool:
    origin = error.orig if isinstance(error, exc.DBAPIError) else error
    return getattr(origin, "sqlstate", None) in _RETRY_STATES


def _caused(error: EngineError, cause: BaseException) -> EngineError:
    error.__cause__ = cause
    return error

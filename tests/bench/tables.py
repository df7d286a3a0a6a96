"""Tables beside plain DuckDB: `load`, `export` and `incremental`.

Our side is the embedded Storage through the interface that mapping uses (`MappingBackend`), opened by
its URL. The other side is what a program without us would write: one connection, `read_csv` with the
columns named, `COPY … TO`, `MERGE`. Both use the same number of threads, the same memory and no row
order, keep all columns as text, and write to a database file by transactions whose commit is in the
measured time: it is durable by DuckDB's log, or by the checkpoint that a large one ends with. Row
counts must agree after every step.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import duckdb
import trio
from tests.bench.measuring import Measure, at_least, temporary_folder
from tests.bench.rows import COLUMNS, write_delta, write_table

from vaka.hooks import MappingBackend
from vaka.models.storage import ExportOptions, StorageScope, TableLoad
from vaka_local import vaka_mapping_backend

MEGABYTES = 200
ROUNDS = 6
THREADS = os.cpu_count() or 1
MEMORY_BYTES = 1 << 30
TABLE = "in.c-bench.orders"
RATIO = 0.8


@dataclass(frozen=True, slots=True)
class Inputs:
    table: Path
    delta: Path
    target: Path
    """Where exports go."""


class Side(Protocol):
    """Something that keeps tables. Each step returns how many rows there are after it."""

    async def begin(self, number: int) -> None:
        """Open an empty place for table `number`; not measured, as `end` is not."""

    async def load(self) -> int: ...

    async def export(self) -> int: ...

    async def set_key(self) -> None:
        """Make ready for `incremental`; not measured."""

    async def incremental(self) -> int: ...

    async def end(self) -> None: ...


class Ours:
    """The embedded Storage, a project for each table."""

    def __init__(self, backend: MappingBackend, inputs: Inputs) -> None:
        self._tables = backend.tables
        self._inputs = inputs

    async def begin(self, number: int) -> None:
        self._scope = StorageScope(f"project{number}")
        await self._tables.create_bucket(self._scope, "in", "bench")

    async def load(self) -> int:
        load = TableLoad(TABLE, (self._inputs.table,))
        return (await self._tables.load(self._scope, [load]))[0].total_rows

    async def export(self) -> int:
        options = ExportOptions()
        return (await self._tables.export(self._scope, TABLE, options, self._inputs.target)).rows

    async def set_key(self) -> None:
        await self._tables.set_primary_key(self._scope, TABLE, ["id"])

    async def incremental(self) -> int:
        load = TableLoad(TABLE, (self._inputs.delta,), incremental=True)
        return (await self._tables.load(self._scope, [load]))[0].total_rows

    async def end(self) -> None:
        await self._tables.drop_table(self._scope, TABLE)


class Plain:
    """DuckDB alone, a database file for each table."""

    def __init__(self, folder: Path, inputs: Inputs) -> None:
        self._folder = folder
        self._inputs = inputs

    async def begin(self, number: int) -> None:
        self._file = self._folder / f"{number}.duckdb"
        self._connection = duckdb.connect(
            str(self._file),
            config={
                "threads": str(THREADS),
                "memory_limit": f"{MEMORY_BYTES}B",
                "preserve_insertion_order": "false",
            },
        )

    async def load(self) -> int:
        return await self._run(f"CREATE TABLE orders AS SELECT * FROM {read(self._inputs.table)}")

    async def export(self) -> int:
        return await self._run(f"COPY orders TO '{self._inputs.target}' (HEADER, FORCE_QUOTE *)")

    async def set_key(self) -> None:
        """Nothing: MERGE names the key."""

    async def incremental(self) -> int:
        values = ", ".join(f"{name} = delta.{name}" for name in COLUMNS[1:])
        fields = ", ".join(f"delta.{name}" for name in COLUMNS)
        await self._run(
            f"""
            MERGE INTO orders USING (SELECT * FROM {read(self._inputs.delta)}) AS delta
            ON orders.id = delta.id
            WHEN MATCHED THEN UPDATE SET {values}
            WHEN NOT MATCHED THEN INSERT VALUES ({fields})
            """
        )
        return await self._run("SELECT count(*) FROM orders")

    async def end(self) -> None:
        self._connection.close()
        self._file.unlink()

    async def _run(self, statement: str) -> int:
        def run() -> int:
            row = self._connection.execute(statement).fetchone()
            assert row is not None
            return int(row[0])

        return await trio.to_thread.run_sync(run)


def storage(home: Path, *, memory_bytes: int, threads: int) -> MappingBackend:
    """The embedded Storage in a folder, not opened yet."""
    found = vaka_mapping_backend(f"local://{home}?memory_bytes={memory_bytes}&threads={threads}")
    assert found is not None
    return found


async def measure() -> list[Measure]:
    """`load`, `export`, `incremental`: MB of CSV a second, 6 interleaved rounds.

    Load: a CSV of 200 MB (7 columns, 2.7 million rows) into a new table. Export: that table to a CSV
    with every field quoted. Incremental: a delta of 10 % of the rows by primary key, half of them of
    keys that are there. Each round is on a new table, and in each the sides take turns step by step.
    """
    with temporary_folder() as folder:
        inputs = Inputs(folder / "table.csv", folder / "delta.csv", folder / "out.csv")
        write_delta(inputs.delta, write_table(inputs.table, MEGABYTES))
        sizes = {"load": inputs.table, "export": inputs.table, "incremental": inputs.delta}
        megabytes = {name: path.stat().st_size / 1e6 for name, path in sizes.items()}
        backend = storage(folder / "home", memory_bytes=MEMORY_BYTES, threads=THREADS)
        await backend.open()
        try:
            ours, plain = Ours(backend, inputs), Plain(folder, inputs)
            speeds = await _rounds(ours, plain, megabytes, inputs)
        finally:
            await backend.aclose()
    return [
        at_least(name, *speeds[name], "MB/s", RATIO, f"{size:.0f} MB of CSV")
        for name, size in megabytes.items()
    ]


async def _rounds(
    ours: Side, plain: Side, megabytes: dict[str, float], inputs: Inputs
) -> dict[str, tuple[list[float], list[float]]]:
    """MB a second of each step, ours and the other side's."""
    speeds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in megabytes}
    for number in range(ROUNDS):
        await ours.begin(number)
        await plain.begin(number)
        for name, size in megabytes.items():
            if name == "incremental":
                await ours.set_key()
                await plain.set_key()
            first, second = (ours, plain) if number % 2 == 0 else (plain, ours)
            found = [await _timed(getattr(each, name), inputs) for each in (first, second)]
            if found[0][1] != found[1][1]:
                raise SystemExit(
                    f"after {name} one side has {found[0][1]} rows, the other {found[1][1]}"
                )
            mine, other = found if number % 2 == 0 else reversed(found)
            speeds[name][0].append(size / mine[0])
            speeds[name][1].append(size / other[0])
        await ours.end()
        await plain.end()
    return speeds


async def _timed(step: Callable[[], Awaitable[int]], inputs: Inputs) -> tuple[float, int]:
    clock = time.perf_counter()
    rows = await step()
    seconds = time.perf_counter() - clock
    inputs.target.unlink(missing_ok=True)
    return seconds, rows


def read(path: Path) -> str:
    columns = ", ".join(f"'{name}': 'VARCHAR'" for name in COLUMNS)
    return (
        f"read_csv('{path}', auto_detect = false, header = true, delim = ',', quote = '\"', "
        f"escape = '\"', columns = {{{columns}}})"
    )

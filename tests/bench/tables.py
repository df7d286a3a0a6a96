"""Tables beside plain DuckDB: `load`, `export` and `incremental`.

Our side is the embedded Storage through the interface that mapping uses (`MappingBackend`), opened by
its URL. The other side is what a program without us would write: one connection, `read_csv` with the
columns named, `COPY … TO`, `MERGE`. Both use the same number of threads, the same memory and no row
order, keep all columns as text, and write to a database file by transactions whose commit is in the
measured time: it is durable by DuckDB's log, or by the checkpoint that a large one ends with. Totals
must agree.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import duckdb
import trio
from tests.bench.measuring import (
    Measure,
    at_least,
    interleave,
    median,
    spread,
    temporary_folder,
)
from tests.bench.rows import COLUMNS, write_delta, write_table

from vaka.hooks import MappingBackend
from vaka.models.storage import ExportOptions, StorageScope, TableLoad
from vaka_local import vaka_mapping_backend

MEGABYTES = 200
ROUNDS = 5
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


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds that each step took in one round."""

    load: float
    export: float
    incremental: float
    totals: tuple[int, int, int]
    """Rows after the load, rows exported, rows after the incremental load."""


def storage(home: Path, *, memory_bytes: int, threads: int) -> MappingBackend:
    """The embedded Storage in a folder, not opened yet."""
    found = vaka_mapping_backend(f"local://{home}?memory_bytes={memory_bytes}&threads={threads}")
    assert found is not None
    return found


async def measure() -> list[Measure]:
    """`load`, `export`, `incremental`: MB of CSV a second, medians of 5 interleaved rounds.

    Load: a CSV of 200 MB (7 columns, 2.7 million rows) into a new table. Export: that table to a CSV
    with every field quoted. Incremental: a delta of 10 % of the rows, half of them of keys that are
    there, by primary key. Each round is on a new table.
    """
    with temporary_folder() as folder:
        inputs = Inputs(folder / "table.csv", folder / "delta.csv", folder / "out.csv")
        write_delta(inputs.delta, write_table(inputs.table, MEGABYTES))
        sizes = [inputs.table.stat().st_size / 1e6] * 2 + [inputs.delta.stat().st_size / 1e6]
        backend = storage(folder / "home", memory_bytes=MEMORY_BYTES, threads=THREADS)
        await backend.open()
        try:
            ours, theirs = await interleave(
                ROUNDS,
                lambda index: _ours(backend, StorageScope(f"project{index}"), inputs),
                lambda index: trio.to_thread.run_sync(_plain, folder / f"{index}.duckdb", inputs),
            )
        finally:
            await backend.aclose()
    if {each.totals for each in ours} != {each.totals for each in theirs}:
        raise SystemExit(f"the rows differ: {ours[0].totals} and {theirs[0].totals}")
    found = []
    for name, megabytes in zip(("load", "export", "incremental"), sizes, strict=True):
        mine = [megabytes / getattr(each, name) for each in ours]
        plain = [megabytes / getattr(each, name) for each in theirs]
        found.append(
            at_least(
                name,
                median(mine),
                median(plain),
                "MB/s",
                RATIO,
                f"{megabytes:.0f} MB of CSV, n = {ROUNDS}; ours {spread(mine)}, "
                f"reference {spread(plain)}",
            )
        )
    return found


async def _ours(backend: MappingBackend, scope: StorageScope, inputs: Inputs) -> Times:
    tables = backend.tables
    await tables.create_bucket(scope, "in", "bench")
    clock = time.perf_counter()
    (loaded,) = await tables.load(scope, [TableLoad(TABLE, (inputs.table,))])
    load, clock = time.perf_counter() - clock, time.perf_counter()
    exported = await tables.export(scope, TABLE, ExportOptions(), inputs.target)
    export = time.perf_counter() - clock
    inputs.target.unlink()
    await tables.set_primary_key(scope, TABLE, ["id"])
    clock = time.perf_counter()
    (merged,) = await tables.load(scope, [TableLoad(TABLE, (inputs.delta,), incremental=True)])
    incremental = time.perf_counter() - clock
    await tables.drop_table(scope, TABLE)
    return Times(load, export, incremental, (loaded.total_rows, exported.rows, merged.total_rows))


def _plain(database: Path, inputs: Inputs) -> Times:
    columns = ", ".join(f"'{name}': 'VARCHAR'" for name in COLUMNS)
    values = ", ".join(f"{name} = delta.{name}" for name in COLUMNS[1:])
    fields = ", ".join(f"delta.{name}" for name in COLUMNS)

    def read(path: Path) -> str:
        return (
            f"read_csv('{path}', auto_detect = false, header = true, delim = ',', quote = '\"', "
            f"escape = '\"', columns = {{{columns}}})"
        )

    with duckdb.connect(
        str(database),
        config={
            "threads": str(THREADS),
            "memory_limit": f"{MEMORY_BYTES}B",
            "preserve_insertion_order": "false",
        },
    ) as connection:

        def timed(statement: str) -> float:
            clock = time.perf_counter()
            connection.execute(statement)
            return time.perf_counter() - clock

        def count() -> int:
            row = connection.execute("SELECT count(*) FROM orders").fetchone()
            assert row is not None
            return int(row[0])

        load = timed(f"CREATE TABLE orders AS SELECT * FROM {read(inputs.table)}")
        loaded = count()
        export = timed(f"COPY orders TO '{inputs.target}' (HEADER, FORCE_QUOTE *)")
        inputs.target.unlink()
        incremental = timed(
            f"""
            MERGE INTO orders USING (SELECT * FROM {read(inputs.delta)}) AS delta
            ON orders.id = delta.id
            WHEN MATCHED THEN UPDATE SET {values}
            WHEN NOT MATCHED THEN INSERT VALUES ({fields})
            """
        )
        times = Times(load, export, incremental, (loaded, loaded, count()))
    database.unlink()
    return times

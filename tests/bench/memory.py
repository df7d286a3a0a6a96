"""Memory beside the size of the file: `memory`.

As a program (`python -m tests.bench.memory FOLDER`) this loads the folder's `table.csv` through the
embedded Storage, exports it, loads `delta.csv` by key, and prints how far the process grew.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import trio
from tests.bench.measuring import Measure, temporary_folder
from tests.bench.processes import program
from tests.bench.rows import write_delta, write_table
from tests.bench.tables import TABLE, THREADS, storage

from vaka.models.storage import ExportOptions, StorageScope, TableLoad

SMALL, LARGE = 20, 200
MEMORY_BYTES = 128 << 20
"""What DuckDB is allowed: less than the large file."""


async def measure() -> list[Measure]:
    """`memory`: peak growth of a process that loads, exports and merges 200 MB, in MB.

    Each size is in a process of its own; growth is the highest resident size less that of the open
    Storage before its first use. What does not depend on the size of the file (libraries, buffers of
    readers and writers) is in both, and DuckDB may fill what it is allowed; so the reference is the
    growth with 20 MB plus DuckDB's limit of 128 MiB, and ours, the growth with 200 MB, may be as much.
    """
    with temporary_folder() as folder:
        grown = {}
        for megabytes in (SMALL, LARGE):
            home = folder / str(megabytes)
            home.mkdir()
            rows = write_table(home / "table.csv", megabytes)
            write_delta(home / "delta.csv", rows)
            arguments = ("-m", "tests.bench.memory", str(home))
            grown[megabytes] = await trio.to_thread.run_sync(partial(program, *arguments))
    ours, reference = grown[LARGE] / 1e6, (grown[SMALL] + MEMORY_BYTES) / 1e6
    return [
        Measure(
            "memory",
            ours,
            reference,
            "MB",
            ours / reference,
            "<= growth with a tenth of the file + DuckDB's limit",
            ours <= reference,
            (f"growth with {SMALL} MB: {grown[SMALL] / 1e6:.0f} MB",),
        )
    ]


async def _grow(home: Path) -> int:
    """Bytes by which this process grew at most."""
    backend = storage(home / "storage", memory_bytes=MEMORY_BYTES, threads=THREADS)
    scope = StorageScope("memory")
    await backend.open()
    try:
        before = resident("VmRSS")
        await backend.tables.create_bucket(scope, "in", "bench")
        await backend.tables.load(
            scope, [TableLoad(TABLE, (home / "table.csv",), primary_key=("id",))]
        )
        await backend.tables.export(scope, TABLE, ExportOptions(), home / "out.csv")
        await backend.tables.load(
            scope, [TableLoad(TABLE, (home / "delta.csv",), incremental=True)]
        )
        return resident("VmHWM") - before
    finally:
        await backend.aclose()


def resident(name: str) -> int:
    """Bytes of memory of this process: `VmRSS` now, `VmHWM` at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"the kernel does not tell {name}")


if __name__ == "__main__":
    print(json.dumps(trio.run(_grow, Path(sys.argv[1]))))

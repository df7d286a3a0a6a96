"""Mapping at its limits: `large table`, `large table memory`, `200 input tables`, `2,000 input files`.

As a program (`python -m tests.bench.mapping FOLDER`) this runs one job that copies the folder's
`table.csv` from one table to another, and prints how long the job took and how far the process grew.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import trio
from tests.bench.daemon import copying_image
from tests.bench.jobs import COMPONENT, component_document
from tests.bench.measuring import Measure, at_least, at_most, interleave, temporary_folder
from tests.bench.memory import resident
from tests.bench.processes import program
from tests.bench.rows import COLUMNS, write_table
from tests.bench.tables import MEMORY_BYTES, THREADS, read, storage

from vaka import Engine, EngineConfig, JobSpec
from vaka.datafolder.folder import JobFolder
from vaka.mapping.inputs import stage_files, stage_tables
from vaka.models.mapping import InputFile, InputTable
from vaka.models.state import JobState
from vaka.models.storage import FileUpload, StorageScope, TableLoad

SMALL, LARGE = 100, 1000
"""MB of the tables that go through a job."""
LARGE_RATIO = 0.8
LARGE_MEMORY_BYTES = 256 << 20
"""What DuckDB is allowed on both sides: a quarter of the large table."""
TABLES, FILES = 200, 2000
ROUNDS = 3
SOURCE, TARGET = "in.c-bench.rows", "out.c-bench.rows"


async def measure_large() -> list[Measure]:
    """`large table`: MB a second of a table of 1 GB, out of Storage, through a component, and back.

    Ours is the whole job, from `submit` to the return of `wait`. The reference is what the work is
    made of: `COPY` by plain DuckDB with the same threads and memory, `cp`, `read_csv` into a new table.

    `large table memory`: how far the engine's process grows by that, in MB, at most as far as with a
    tenth of the table and all of what DuckDB is allowed.
    """
    with temporary_folder() as folder:
        grown: dict[int, float] = {}
        ours: list[float] = []
        reference: list[float] = []
        for megabytes in (SMALL, LARGE):
            home = folder / str(megabytes)
            home.mkdir()
            write_table(home / "table.csv", megabytes)
            size = (home / "table.csv").stat().st_size / 1e6
            arguments = ("-m", "tests.bench.mapping", str(home))
            found = await trio.to_thread.run_sync(partial(program, *arguments))
            grown[megabytes] = found["grown"] / 1e6
            if megabytes == LARGE:
                ours.append(size / found["seconds"])
                seconds = await trio.to_thread.run_sync(_plain_copy, home)
                reference.append(size / seconds)
    limit = grown[SMALL] + LARGE_MEMORY_BYTES / 1e6
    return [
        at_least("large table", ours, reference, "MB/s", LARGE_RATIO, f"{LARGE} MB of CSV"),
        Measure(
            "large table memory",
            grown[LARGE],
            limit,
            "MB",
            grown[LARGE] / limit,
            "<= growth with a tenth of the table + DuckDB's limit",
            grown[LARGE] <= limit,
            (f"growth with {SMALL} MB: {grown[SMALL]:.0f} MB",),
        ),
    ]


def _plain_copy(home: Path) -> float:
    """Seconds that the same work takes without a runner."""
    connection = duckdb.connect(
        str(home / "plain.duckdb"),
        config={
            "threads": str(THREADS),
            "memory_limit": f"{LARGE_MEMORY_BYTES}B",
            "preserve_insertion_order": "false",
        },
    )
    with connection:
        connection.execute(f"CREATE TABLE rows AS SELECT * FROM {read(home / 'table.csv')}")
        clock = time.perf_counter()
        staged, copied = home / "staged.csv", home / "copied.csv"
        connection.execute(f"COPY rows TO '{staged}' (HEADER, FORCE_QUOTE *)")
        shutil.copyfile(staged, copied)
        connection.execute(f"CREATE TABLE copied AS SELECT * FROM {read(copied)}")
        return time.perf_counter() - clock


async def _run_large(home: Path) -> Mapping[str, float]:
    """The job: how long it took, and how many bytes this process grew by at most."""
    tag = str(os.getpid())
    with copying_image(tag) as image:
        config = EngineConfig(
            home=home / "home",
            instance=f"bench-{tag}",
            storage_url=f"local://{home}/storage?memory_bytes={LARGE_MEMORY_BYTES}&threads={THREADS}",
            shutdown="stop",
        )
        async with Engine(config) as engine:
            project = (await engine.catalog.create_project("Bench")).id
            await engine.catalog.put_component(component_document(image, tag))
            scope = StorageScope(project)
            await engine.storage.tables.load(scope, [TableLoad(SOURCE, (home / "table.csv",))])
            document = {
                "storage": {
                    "input": {"tables": [{"source": SOURCE, "destination": "rows.csv"}]},
                    "output": {"tables": [{"source": "rows.csv", "destination": TARGET}]},
                }
            }
            before = resident("VmRSS")
            await trio.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            clock = time.perf_counter()
            job = await engine.submit(
                JobSpec(component=COMPONENT, config_data=document, project=project)
            )
            (await job.wait()).raise_for_status()
            seconds = time.perf_counter() - clock
            grown = resident("VmHWM") - before
            copied = await engine.storage.tables.table(scope, TARGET)
            source = await engine.storage.tables.table(scope, SOURCE)
            if copied.rows_count != source.rows_count:
                raise SystemExit(f"{source.rows_count} rows became {copied.rows_count}")
    return {"seconds": seconds, "grown": grown}


async def measure_many() -> list[Measure]:
    """`200 input tables`, `2,000 input files`: milliseconds each, staged with their manifests.

    Tables have 100 rows; the reference writes each by `COPY` of plain DuckDB. Files have 1 kB; the
    reference copies each. Both references write a manifest of the same size beside it.
    """
    with temporary_folder() as folder:
        backend = storage(folder / "home", memory_bytes=MEMORY_BYTES, threads=THREADS)
        scope = StorageScope("many")
        await backend.open()
        try:
            source = folder / "rows.csv"
            rows = "".join(f'"{row}","name {row}","2026-01-01"\n' for row in range(100))
            source.write_text(f'"id","name","day"\n{rows}')
            content = folder / "content"
            content.write_bytes(os.urandom(1000))
            for number in range(TABLES):
                await backend.tables.load(scope, [TableLoad(f"in.c-bench.t{number}", (source,))])
            for number in range(FILES):
                await backend.files.upload(
                    scope, FileUpload(f"f{number}", tags=("bench",)), content
                )
            plain = duckdb.connect(str(folder / "plain.duckdb"), config={"threads": str(THREADS)})
            with plain:
                for number in range(TABLES):
                    plain.execute(
                        f"CREATE TABLE t{number} AS SELECT * FROM "
                        f"read_csv('{source}', all_varchar = true)"
                    )

                async def stage(kind: str, number: int) -> float:
                    job = JobFolder(folder / f"{kind}{number}", owner=None)
                    await trio.to_thread.run_sync(job.create)
                    clock = time.perf_counter()
                    common: dict[str, Any] = {
                        "backend": backend,
                        "scope": scope,
                        "folder": job,
                        "state": JobState(),
                        "format": "json",
                        "report": _report,
                    }
                    if kind == "tables":
                        items = [
                            {"source": f"in.c-bench.t{each}", "destination": f"t{each}.csv"}
                            for each in range(TABLES)
                        ]
                        await stage_tables([InputTable.parse(each) for each in items], **common)
                    else:
                        wanted = {"tags": ["bench"], "limit": FILES}
                        found = await stage_files([InputFile.parse(wanted)], **common)
                        if found.files != FILES:
                            raise SystemExit(f"{found.files} files were staged")
                    seconds = time.perf_counter() - clock
                    await trio.to_thread.run_sync(job.remove)
                    return seconds * 1000

                async def copy(kind: str, number: int) -> float:
                    target = folder / f"plain-{kind}{number}"
                    work = partial(_copy_tables, plain) if kind == "tables" else _copy_files
                    seconds = await trio.to_thread.run_sync(work, content, target)
                    shutil.rmtree(target)
                    return seconds * 1000

                tables = await interleave(ROUNDS, partial(stage, "tables"), partial(copy, "tables"))
                files = await interleave(ROUNDS, partial(stage, "files"), partial(copy, "files"))
        finally:
            await backend.aclose()
    return [
        at_most("200 input tables", *tables, "ms", 3.0),
        at_most("2,000 input files", *files, "ms", 10.0),
    ]


def _copy_tables(plain: duckdb.DuckDBPyConnection, _: Path, target: Path) -> float:
    target.mkdir()
    clock = time.perf_counter()
    for number in range(TABLES):
        path = target / f"t{number}.csv"
        plain.execute(f"COPY t{number} TO '{path}' (HEADER, FORCE_QUOTE *)")
        _write_manifest(path)
    return time.perf_counter() - clock


def _copy_files(content: Path, target: Path) -> float:
    target.mkdir()
    clock = time.perf_counter()
    for number in range(FILES):
        path = target / f"f{number}"
        shutil.copyfile(content, path)
        _write_manifest(path)
    return time.perf_counter() - clock


def _write_manifest(path: Path) -> None:
    document = {"id": path.name, "columns": list(COLUMNS), "tags": ["bench"], "metadata": []}
    Path(f"{path}.manifest").write_text(json.dumps(document))


async def _report(kind: str, level: Any, message: str, data: Mapping[str, Any]) -> None:
    """Nobody listens."""


if __name__ == "__main__":
    print(json.dumps(trio.run(_run_large, Path(sys.argv[1]))))

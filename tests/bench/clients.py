"""A published client against a server: `kbcstorage up and in`, `kbcstorage out and down`, `50 clients`.

kbcstorage is the official Python client of Storage, in its own environment and process, unmodified; the
server is `vaka serve` on a home of its own, on the loopback. What the client itself costs is therefore
part of ours: it reads a file into memory, puts slices together line by line, and polls.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import trio
from tests.bench.measuring import (
    ROOT,
    Measure,
    at_least,
    environment,
    interleave,
    temporary_folder,
)
from tests.bench.processes import served
from tests.bench.rows import write_table
from tests.bench.tables import MEGABYTES, MEMORY_BYTES, THREADS, read

from vaka import Engine, EngineConfig
from vaka.models.catalog import Role

PROGRAM = ROOT / "tests/clients/programs/kbcstorage_bench.py"
ROUNDS = 5
RATIO = 0.6
CLIENTS = 50
CROWDS = 2
ALONE = 10
"""Walks of a single client, one after the other, that the crowd is compared with."""


class Client:
    """The client's process: calls of its program by name."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def call(self, name: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"failed": self._log.read_text()[-2000:]}
        if answer["failed"]:
            raise SystemExit(f"kbcstorage, {name}: {answer['failed']}")
        return answer["answer"]


@contextmanager
def client(port: int, token: str, folder: Path) -> Iterator[Client]:
    """The client in a folder of its own; ended afterwards."""
    folder.mkdir()
    log = folder / "log"
    command = [str(_environment() / "bin/python"), str(PROGRAM)]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*command, f"http://127.0.0.1:{port}", token, str(folder)],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield Client(process, log)
    finally:
        process.kill()
        process.communicate()


def _environment() -> Path:
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci/clients.py"), "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return Path(json.loads(done.stdout)["kbcstorage"])


async def measure_table() -> list[Measure]:
    """`kbcstorage up and in` and `out and down`: MB of CSV a second, 5 interleaved rounds.

    Up and in: a CSV of 200 MB (7 columns, 2.7 million rows) uploaded in blocks and imported into a new
    table. Out and down: that table exported into a file of Storage, whose slices the client downloads
    and puts together. The other side is what the same needs without a server: `cp` of the file and
    plain DuckDB (`read_csv`; `COPY … TO`), as in `load` and `export`. Row counts must agree.
    """
    with temporary_folder() as folder:
        table = folder / "table.csv"
        rows = write_table(table, MEGABYTES)
        token = await _fill(folder / "home")
        with (
            served(folder / "home", folder / "log", memory_bytes=str(MEMORY_BYTES)) as (_, port),
            client(port, token, folder / "client") as ours,
        ):
            ours.call("bucket", "bench")

            def both(number: int) -> tuple[float, float]:
                name = f"in.c-bench.orders{number}"
                loaded = ours.call("up_and_in", name, str(table))
                if loaded["rows"] != rows:
                    raise SystemExit(f"{name} has {loaded['rows']} rows, the file {rows}")
                exported = ours.call("out_and_down", name)
                ours.call("drop", name)
                return loaded["seconds"], exported["seconds"]

            def plain(number: int) -> tuple[float, float]:
                return _plain(folder / f"plain{number}", table, rows)

            mine, others = await interleave(ROUNDS, _threaded(both), _threaded(plain))
        megabytes = table.stat().st_size / 1e6
    note = f"{megabytes:.0f} MB of CSV"
    return [
        at_least(
            f"kbcstorage {name}",
            [megabytes / each[index] for each in mine],
            [megabytes / each[index] for each in others],
            "MB/s",
            RATIO,
            note,
        )
        for index, name in enumerate(("up and in", "out and down"))
    ]


async def measure_crowd() -> list[Measure]:
    """`50 clients`: 50 clients at a time without an error; walks a second, beside one at a time.

    A walk is a bucket, a table uploaded and imported, its detail, a preview, an incremental load, an
    export and the end of the bucket, by a client with connections of its own. None may fail. The speed
    is there to be seen, not to be met: who of many is not answered in time pauses for 4 seconds or more.
    """
    with temporary_folder() as folder:
        token = await _fill(folder / "home")
        failed: list[str] = []
        with (
            served(folder / "home", folder / "log") as (_, port),
            client(port, token, folder / "client") as ours,
        ):

            def crowd(number: int) -> float:
                done = ours.call("crowd", CLIENTS, f"crowd{number}")
                failed.extend(done["failed"])
                return CLIENTS / float(done["seconds"])

            def alone(number: int) -> float:
                walks = [ours.call("crowd", 1, f"alone{number}-{each}") for each in range(ALONE)]
                for walk in walks:
                    failed.extend(walk["failed"])
                return ALONE / sum(float(walk["seconds"]) for walk in walks)

            mine, others = await interleave(CROWDS, _threaded(crowd), _threaded(alone))
    found = at_least("50 clients", mine, others, "walks/s", 0)
    errors = f"{len(failed)} of {CROWDS * (CLIENTS + ALONE)} walks failed"
    return [
        Measure(
            found.name,
            found.ours,
            found.reference,
            found.unit,
            found.ratio,
            "no error",
            not failed,
            (errors, *failed[:3], *found.notes),
        )
    ]


def _threaded(work: Any) -> Any:
    async def run(number: int) -> Any:
        return await trio.to_thread.run_sync(work, number)

    return run


def _plain(folder: Path, table: Path, rows: int) -> tuple[float, float]:
    """Seconds of `cp` and `read_csv`, and of `COPY … TO` and `cp`."""
    folder.mkdir()
    copy, target = folder / "copy.csv", folder / "out.csv"
    connection = duckdb.connect(
        str(folder / "plain.duckdb"),
        config={
            "threads": str(THREADS),
            "memory_limit": f"{MEMORY_BYTES}B",
            "preserve_insertion_order": "false",
        },
    )
    try:
        started = time.perf_counter()
        _cp(table, copy)
        connection.execute(f"CREATE TABLE orders AS SELECT * FROM {read(copy)}")
        loaded = time.perf_counter() - started
        found = connection.execute("SELECT count(*) FROM orders").fetchone()
        if found != (rows,):
            raise SystemExit(f"plain DuckDB has {found} rows, the file {rows}")
        started = time.perf_counter()
        connection.execute(f"COPY orders TO '{target}' (HEADER, FORCE_QUOTE *)")
        _cp(target, copy)
        exported = time.perf_counter() - started
    finally:
        connection.close()
        shutil.rmtree(folder)
    return loaded, exported


def _cp(source: Path, target: Path) -> None:
    subprocess.run(["cp", str(source), str(target)], check=True)


async def _fill(home: Path) -> str:
    """A home with a project; the secret of its token."""
    await trio.Path(home).mkdir()  # only an engine that works makes its home
    async with Engine(EngineConfig(home=home, worker=False)) as engine:
        project = (await engine.catalog.create_project("Bench")).id
        _, secret = await engine.catalog.create_token(project, "bench", Role.ADMIN)
    return secret

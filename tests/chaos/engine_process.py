"""`python -m tests.chaos.engine_process PLAN`: an engine in a process that is to be killed.

It submits the job when there is none, waits for its end and prints what is then to be seen, as JSON.
`PLAN` says at which write of the job store, or after how many seconds, it kills itself before that.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trio

from vaka import Engine, EngineConfig, JobQuery, JobSpec
from vaka.actors.reconciler import reconcile
from vaka.models.storage import ExportOptions, FileQuery, StorageScope, TableLoad
from vaka.store._database import Database, Request

COMPONENT = "chaos.main"
TABLES = ("out.c-chaos.appended", "out.c-chaos.keyed", "out.c-chaos.replaced")
LINES = 25
ROWS = 40
LAST_WORDS = "last words"


def _says(who: str) -> str:
    return f'i=0; while [ $i -lt {LINES} ]; do echo "{who} $i"; i=$((i+1)); done'


def _processor(who: str) -> str:
    return f"""
    set -e; {_says(who)}
    cp -r /data/in/tables/. /data/out/tables/; cp -r /data/in/files/. /data/out/files/
    """


PROGRAMS = {
    "chaos.before": _processor("before"),
    COMPONENT: f"""
    set -e; {_says("main")}
    cp /data/in/tables/rows.csv /data/out/tables/appended.csv
    cp /data/in/tables/rows.csv /data/out/tables/keyed.csv
    cp /data/in/tables/other.csv /data/out/tables/replaced.csv
    echo content > /data/out/files/report.txt
    runs=$(sed -n 's/.*"runs": *\\([0-9]*\\).*/\\1/p' /data/in/state.json)
    printf '{{"runs": %d}}' $((${{runs:-0}} + 1)) > /data/out/state.json
    echo "{LAST_WORDS}" >&2
    """,
    "chaos.after": _processor("after"),
}
CONFIGURATION: dict[str, Any] = {
    "storage": {
        "input": {
            "tables": [
                {"source": "in.c-chaos.rows", "destination": "rows.csv"},
                {"source": "in.c-chaos.other", "destination": "other.csv"},
            ]
        },
        "output": {
            "tables": [
                {"source": "appended.csv", "destination": TABLES[0], "incremental": True},
                {
                    "source": "keyed.csv",
                    "destination": TABLES[1],
                    "incremental": True,
                    "primary_key": ["id"],
                },
                {"source": "replaced.csv", "destination": TABLES[2]},
            ],
            "files": [{"source": "report.txt", "tags": ["chaos"]}],
        },
    },
    "processors": {
        "before": [{"definition": {"component": "chaos.before"}}],
        "after": [{"definition": {"component": "chaos.after"}}],
    },
}


@dataclass(frozen=True)
class Plan:
    """Where an engine is, and when it dies."""

    home: str
    instance: str
    runtime_url: str
    write: int | None = None
    """The write of the job store at which it dies, counted from 1."""
    after: bool = True
    """After that write is durable; else before it is begun."""
    seconds: float | None = None
    """Or so long after the engine has opened."""

    @property
    def config(self) -> EngineConfig:
        return EngineConfig(
            home=Path(self.home),
            instance=self.instance,
            runtime_url=self.runtime_url,
            pull_attempts=1,
            shutdown="drain",
        )

    @property
    def text(self) -> str:
        return json.dumps(asdict(self))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


WRITES = itertools.count(1)


def die_at_write(number: int | None, *, after: bool) -> None:
    """Have this process killed around the job store's transaction of this number; count them all."""
    commit: Callable[[Database, Sequence[Request[Any]]], None] = Database.commit
    numbers = WRITES

    def counting(self: Database, batch: Sequence[Request[Any]]) -> None:
        is_the_one = next(numbers) == number
        if is_the_one and not after:
            die()
        commit(self, batch)
        if is_the_one:
            die()

    Database.commit = counting  # type: ignore[method-assign]


async def run(plan: Plan) -> dict[str, Any]:
    """Bring the home's job to its end, from wherever it is."""
    async with Engine(plan.config) as engine:
        if plan.seconds is not None:
            timer = threading.Timer(plan.seconds, die)
            timer.daemon = True  # the end may come first
            timer.start()
        (project,) = await engine.catalog.projects()
        known = await engine.jobs(JobQuery(project=project.id))
        job = (
            await engine.job(known[0].id)
            if known
            else await engine.submit(
                JobSpec(component=COMPONENT, config="c", project=project.id, idempotency_key="one")
            )
        )
        await job.wait()
        await reconcile(engine.services)
        events = [event async for event in job.events(follow=False)]
        lines = [event.message for event in events if event.kind == "log"]
        scope = StorageScope(project.id)
        tables = engine.storage.tables
        found = {
            table: sorted((await tables.preview(scope, table, ExportOptions(limit=1000)))[1])
            for table in TABLES
        }
        files = await engine.storage.files.list_files(scope, FileQuery(tags=("chaos",)))
        state = await engine.catalog.state(project.id, COMPONENT, "c")
        return {
            "jobs": len(await engine.jobs(JobQuery(project=project.id))),
            "status": job.record.status.value,
            "error": job.record.error,
            "lines": [line for line in lines if line != LAST_WORDS],
            "last_words": lines.count(LAST_WORDS),
            "stages": [stage.status for stage in job.record.stages],
            "started": sum(event.kind == "stage.started" for event in events),
            "tables": found,
            "files": [(file.name, file.size_bytes) for file in files],
            "state": state.value["component"],
        }


async def set_up(plan: Plan, images: dict[str, str]) -> None:
    """A home with the components, the configuration and the input tables."""
    async with Engine(plan.config) as engine:
        (project,) = await engine.catalog.projects()
        for component, image in images.items():
            uri, _, tag = image.partition(":")
            await engine.catalog.put_component(
                {
                    "id": component,
                    "type": "application" if component == COMPONENT else "processor",
                    "name": component,
                    "data": {
                        "definition": {"type": "dockerhub", "uri": uri, "tag": tag},
                        "network": "none",
                    },
                }
            )
        await engine.catalog.create_configuration(
            project.id, COMPONENT, "Chaos", config_id="c", configuration=CONFIGURATION
        )
        for name in ("rows", "other"):
            source = Path(plan.home) / f"{name}.csv"
            source.write_text("id,name\n" + "".join(f"{row},{name} {row}\n" for row in range(ROWS)))
            await engine.storage.tables.load(
                StorageScope(project.id), [TableLoad(f"in.c-chaos.{name}", (source,))]
            )
            source.unlink()


def expected() -> dict[str, Any]:
    """What is to be seen of a job that nothing has happened to."""
    said = [f"{who} {number}" for who in ("before", "main", "after") for number in range(LINES)]
    rows = sorted([str(row), f"rows {row}"] for row in range(ROWS))
    others = sorted([str(row), f"other {row}"] for row in range(ROWS))
    return {
        "jobs": 1,
        "status": "success",
        "error": None,
        "lines": said,
        "last_words": 1,
        "stages": ["collected"] * 3,
        "started": 3,
        "tables": dict(zip(TABLES, (rows, rows, others), strict=True)),
        "files": [["report.txt", 8]],
        "state": {"runs": 1},
    }


def main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    die_at_write(plan.write, after=plan.after)
    seen = trio.run(run, plan)
    json.dump({"seen": seen, "writes": next(WRITES) - 1}, sys.stdout)


if __name__ == "__main__":
    main()

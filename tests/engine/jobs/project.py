"""A project whose components are plays: what they write is given, and what they were given is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from vaka import Engine, Event, Job, JobSpec, Outcome
from vaka.models.catalog import State
from vaka.models.ciphers import Scope
from vaka.models.container import ContainerSpec
from vaka.models.storage import ExportOptions, StorageScope, TableLoad
from vaka.testing import FakeHost, FakeImage, Script, host_path

SCOPE = StorageScope("1")
Writes = Mapping[str, str | bytes]


@dataclass(frozen=True)
class Seen:
    """What one container was given: read when it ends, before it writes."""

    environment: Mapping[str, str]
    files: Mapping[str, str]
    """Every file below /data, by its path there."""
    folders: tuple[str, ...]

    @property
    def component(self) -> str:
        return self.environment["KBC_COMPONENTID"]


@dataclass
class Ran:
    """A job that has ended."""

    job: Job
    outcome: Outcome
    events: list[Event]

    @property
    def told(self) -> list[str]:
        """The messages of all its events."""
        return [event.message for event in self.events]

    @property
    def result(self) -> Mapping[str, Any]:
        return self.outcome.result


@dataclass
class Project:
    """Components, configurations and tables of project 1."""

    engine: Engine
    host: FakeHost
    folder: Path
    seen: list[Seen] = field(default_factory=list)
    """What every container was given, in the order they ended."""

    async def component(
        self,
        component_id: str,
        writes: Writes | Callable[[Seen], Writes] | None = None,
        *,
        features: tuple[str, ...] = (),
        digests: tuple[str, ...] = (),
        script: Callable[[ContainerSpec], Script] | None = None,
        data: Mapping[str, Any] | None = None,
        types: str = "none",
        **play: Any,
    ) -> str:
        """Register a component whose containers write `writes` below /data; its image."""
        uri = component_id.replace(".", "-")

        def effect(spec: ContainerSpec) -> None:
            seen = _look(spec)
            self.seen.append(seen)
            for path, content in (writes(seen) if callable(writes) else writes or {}).items():
                target = host_path(spec, "/data") / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.encode() if isinstance(content, str) else content)

        def play_one(spec: ContainerSpec) -> Script:
            own = script(spec) if script is not None else Script(**play)
            return Script(
                own.output,
                seconds=own.seconds,
                exit_code=own.exit_code,
                oom_killed=own.oom_killed,
                stop_seconds=own.stop_seconds,
                effect=effect,
            )

        self.host.images[f"{uri}:1"] = FakeImage(play_one, digests=digests)
        await self.engine.catalog.put_component(
            {
                "id": component_id,
                "type": "other",
                "name": component_id,
                "features": list(features),
                "dataTypesConfiguration": {"dataTypesSupport": types},
                "data": {
                    "definition": {"type": "dockerhub", "uri": uri, "tag": "1"},
                    **(data or {}),
                },
            }
        )
        return f"{uri}:1"

    async def processor(self, component_id: str, **options: Any) -> str:
        """Register a component that copies what is in `in` to `out`."""
        return await self.component(component_id, copied, **options)

    async def configuration(
        self,
        component_id: str,
        configuration: Any = None,
        *,
        config_id: str = "c",
        rows: Mapping[str, Any] | None = None,
        disabled: tuple[str, ...] = (),
    ) -> None:
        """A stored configuration with rows in this order."""
        catalog = self.engine.catalog
        await catalog.create_configuration(
            "1", component_id, config_id, config_id=config_id, configuration=configuration or {}
        )
        for row_id, content in (rows or {}).items():
            await catalog.create_row(
                "1",
                component_id,
                config_id,
                row_id=row_id,
                configuration=content,
                is_disabled=row_id in disabled,
            )

    async def sealed(self, document: Any, component_id: str, **ids: Any) -> Any:
        """A document as it is stored, its secrets encrypted for a component of the project."""
        return await self.engine.encryption.encrypt(document, Scope(component_id, "1", **ids))

    async def run(self, component_id: str, **spec: Any) -> Ran:
        """Run a job to its end."""
        return await self.ended(
            await self.engine.submit(JobSpec(component=component_id, **spec)),
        )

    async def ended(self, job: Job) -> Ran:
        outcome = await job.wait()
        return Ran(job, outcome, [event async for event in job.events(follow=False)])

    async def set_state(
        self, component_id: str, value: Any, row_id: str | None = None, config_id: str = "c"
    ) -> None:
        before = await self.state(component_id, row_id, config_id)
        await self.engine.catalog.put_state(
            "1", component_id, config_id, row_id, value, expected_version=before.version
        )

    async def state(
        self, component_id: str, row_id: str | None = None, config_id: str = "c"
    ) -> State:
        return await self.engine.catalog.state("1", component_id, config_id, row_id)

    async def load(self, table_id: str, csv: str, **options: Any) -> None:
        """Put rows into a table."""
        path = self.folder / "load.csv"
        path.write_text(csv)
        await self.engine.storage.tables.load(SCOPE, [TableLoad(table_id, (path,), **options)])

    async def tables(self) -> list[str]:
        return [table.id for table in await self.engine.storage.tables.list_tables(SCOPE)]

    async def rows(self, table_id: str) -> list[tuple[str | None, ...]]:
        """A table's rows, sorted."""
        _, rows = await self.engine.storage.tables.preview(SCOPE, table_id, ExportOptions())
        return sorted(rows, key=str)


async def until(is_so: Callable[[], object]) -> None:
    """Return when something is so, on simulated time."""
    while True:
        if is_so():
            return
        await trio.sleep(0.001)


def copied(seen: Seen) -> Writes:
    """What a processor writes that changes nothing."""
    return {
        path.replace("in/", "out/", 1): content
        for path, content in seen.files.items()
        if path.startswith(("in/tables/", "in/files/"))
    }


def _look(spec: ContainerSpec) -> Seen:
    root = host_path(spec, "/data")
    paths = sorted(root.rglob("*"))
    return Seen(
        dict(spec.environment),
        {str(path.relative_to(root)): path.read_text() for path in paths if path.is_file()},
        tuple(str(path.relative_to(root)) for path in paths if path.is_dir()),
    )

"""A project in an engine of its own, on the real daemon."""

from __future__ import annotations

import secrets
import textwrap
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.acceptance.images import Images

from vaka import Engine, EngineConfig, Event, JobSpec, Outcome
from vaka.models.storage import StorageScope


@dataclass
class Project:
    """A project in an engine on the real daemon."""

    engine: Engine
    instance: str
    images: Images
    library: str
    """An image with Python and the component library."""
    id: str

    async def component(
        self, component_id: str, image: str, *, types: str = "none", **data: Any
    ) -> None:
        uri, _, tag = image.partition(":")
        await self.engine.catalog.put_component(
            {
                "id": component_id,
                "type": "other",
                "name": component_id,
                "dataTypesConfiguration": {"dataTypesSupport": types},
                "data": {
                    "definition": {"type": "dockerhub", "uri": uri, "tag": tag},
                    "network": "none",
                    **data,
                },
            }
        )

    async def python(self, component_id: str, program: str, **options: Any) -> None:
        """A component that is this program, `library` at hand."""
        image = self.images.python(self.library, textwrap.dedent(program))
        await self.component(component_id, image, **options)

    async def run(self, component_id: str, **spec: Any) -> tuple[Outcome, list[Event]]:
        """A job's outcome, and what its containers printed."""
        job = await self.engine.submit(
            JobSpec(component=component_id, project=self.id, **{"config_data": {}, **spec})
        )
        outcome = await job.wait()
        return outcome, [event async for event in job.events(follow=False) if event.kind == "log"]

    async def columns(self, table_id: str) -> tuple[str, ...]:
        table = await self.engine.storage.tables.table(StorageScope(self.id), table_id)
        return table.columns


@asynccontextmanager
async def open_project(
    docker_host: str, images: Images, library: str, home: Path, *, features: Iterable[str] = ()
) -> AsyncIterator[Project]:
    """A project; on leaving, its engine has left no container."""
    config = EngineConfig(
        home=home,
        instance=f"test-{secrets.token_hex(4)}",
        runtime_url=f"docker+{docker_host}",
        pull_attempts=1,
    )
    async with Engine(config) as engine:
        made = await engine.catalog.create_project("Shop", features=tuple(features))
        yield Project(engine, config.instance, images, library, made.id)
    assert images.containers(config.instance) == []

"""Collecting on a real daemon that others use, too."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from vaka import Engine, EngineConfig
from vaka.actors.collector import BUILDER, LABEL_ORIGIN
from vaka.docker import Docker, DockerNotFound
from vaka.models.garbage import GarbageKind

pytestmark = pytest.mark.docker


class Yard:
    """Containers and images that a test leaves on the daemon; gone after it."""

    def __init__(self, docker: Docker, base: str) -> None:
        self.instance = f"test-{secrets.token_hex(4)}"
        self._docker = docker
        self._base = base
        self._containers: list[str] = []
        self._images: list[str] = []

    async def container(self, name: str, *, ours: bool) -> str:
        """A container that has ended."""
        name = f"{self.instance}-{name}"
        labels = {"vaka.instance": self.instance} if ours else {"other": self.instance}
        host = {"NetworkMode": "none"}
        config: dict[str, Any] = {
            "Image": self._base,
            "Cmd": ["true"],
            "Labels": labels,
            "HostConfig": host,
        }
        made = await self._docker.containers.create(config, name=name)
        self._containers.append(name)
        await made.start()
        await made.wait()
        return name

    async def image(self, name: str | None, labels: dict[str, str]) -> str:
        """An image with these labels; its id. Without a name it is dangling."""
        made = await self._docker.containers.create({"Image": self._base})
        labels = {**labels, "made": secrets.token_hex(4)}
        changes = [f"LABEL {key}={value}" for key, value in labels.items()]
        repository = None if name is None else self.instance
        done = await made.commit(repository=repository, tag=name, changes=changes)
        await made.delete()
        self._images.append(str(done["Id"]))
        return self._images[-1]

    async def has_image(self, id_: str) -> bool:
        with suppress(DockerNotFound):
            await self._docker.images.inspect(id_)
            return True
        return False

    async def has_container(self, name: str) -> bool:
        with suppress(DockerNotFound):
            await self._docker.containers.get(name)
            return True
        return False

    async def clear(self) -> None:
        for name in self._containers:
            with suppress(DockerNotFound):
                await self._docker.containers.container(name).delete(force=True)
        for id_ in self._images:
            with suppress(DockerNotFound):
                await self._docker.images.delete(id_, force=True, noprune=True)


@pytest.fixture
async def yard(docker_host: str, busybox_image: str) -> AsyncIterator[Yard]:
    async with Docker(docker_host) as docker:
        yard = Yard(docker, busybox_image)
        try:
            yield yard
        finally:
            await yard.clear()


@pytest.mark.scenario("runner", 243)
async def test_what_is_old_and_ours_is_removed_and_nothing_else(yard: Yard, tmp_path: Path) -> None:
    ours = {"vaka.instance": yard.instance}
    built = {**ours, LABEL_ORIGIN: BUILDER}
    old_container = await yard.container("old", ours=True)
    foreign_container = await yard.container("foreign", ours=False)
    old_image = await yard.image("old", built)
    foreign_image = await yard.image("foreign", {LABEL_ORIGIN: BUILDER})
    marker = datetime.now(UTC)
    new_container = await yard.container("new", ours=True)
    new_image = await yard.image("new", built)
    ordinary_image = await yard.image("ordinary", ours)
    dangling = await yard.image(None, ours)
    foreign_dangling = await yard.image(None, {})
    now = datetime.now(UTC)
    age = (now - marker).total_seconds()
    config = EngineConfig(
        home=tmp_path / "home",
        instance=yard.instance,
        worker=False,
        gc_container_age=age,
        gc_image_age=age,
    )
    async with Engine(config) as engine:
        object.__setattr__(engine.services, "now", lambda: now)
        plan = await engine.gc_plan()
        assert {(item.kind, item.name) for item in plan.items} == {
            (GarbageKind.CONTAINER, old_container),
            (GarbageKind.BUILDER_IMAGE, f"{yard.instance}:old"),
            (GarbageKind.DANGLING_IMAGE, dangling),
        }
        assert plan.failures == {}
        assert all(item.bytes for item in plan.items if item.kind is not GarbageKind.CONTAINER)
        lines: list[str] = []
        report = await engine.gc_apply(plan, say=lines.append)
    assert len(report.removed) == 3
    assert report.failures == ()
    assert lines[-1] == "Finished"
    assert not await yard.has_container(old_container)
    for name in (foreign_container, new_container):
        assert await yard.has_container(name)
    for image in (old_image, dangling):
        assert not await yard.has_image(image)
    for image in (foreign_image, new_image, ordinary_image, foreign_dangling):
        assert await yard.has_image(image)

"""Engines as the server and the command line open them, and what a new home needs."""

from __future__ import annotations

from types import SimpleNamespace

from vaka import Engine, EngineConfig
from vaka.hooks import Catalog, ContainerRuntime, hookimpl
from vaka.models.catalog import Role
from vaka_server.no_runtime import NoRuntime

PROJECT = "Vaka"


def make_engine(config: EngineConfig) -> Engine:
    """The engine of these settings; one that runs no jobs needs no container runtime either."""
    return Engine(config, plugins=() if config.worker else (_WITHOUT_RUNTIME,))


async def first_token(catalog: Catalog) -> str | None:
    """The secret of a new admin token when there is none yet, in a project that is made if missing."""
    projects = await catalog.projects()
    project = projects[0] if projects else await catalog.create_project(PROJECT)
    if await catalog.tokens(project.id):
        return None
    _, secret = await catalog.create_token(project.id, "admin", Role.ADMIN)
    return secret


@hookimpl
def vaka_container_runtime(url: str) -> ContainerRuntime:  # noqa: ARG001 - whatever it is
    """None that runs anything."""
    return NoRuntime()


_WITHOUT_RUNTIME = SimpleNamespace(vaka_container_runtime=vaka_container_runtime)

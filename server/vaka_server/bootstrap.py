"""What a new home needs."""

from __future__ import annotations

from vaka.hooks import Catalog
from vaka.models.catalog import Role

PROJECT = "Vaka"


async def first_token(catalog: Catalog) -> str | None:
    """The secret of a new admin token when there is none yet, in a project that is made if missing."""
    projects = await catalog.projects()
    project = projects[0] if projects else await catalog.create_project(PROJECT)
    if await catalog.tokens(project.id):
        return None
    _, secret = await catalog.create_token(project.id, "admin", Role.ADMIN)
    return secret

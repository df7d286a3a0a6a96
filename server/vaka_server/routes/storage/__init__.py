"""Storage's API (storage-api.md), one module per resource."""

from vaka_server.routes.storage import (
    blobs,
    branches,
    components,
    configurations,
    files,
    index,
    jobs,
    remarks,
    rows,
    search,
    workspaces,
)

__all__ = ["ROUTES"]

ROUTES = (
    *index.ROUTES,
    *files.ROUTES,
    *blobs.ROUTES,
    *jobs.ROUTES,
    *branches.ROUTES,
    *components.ROUTES,
    *configurations.ROUTES,
    *rows.ROUTES,
    *remarks.ROUTES,
    *search.ROUTES,
    *workspaces.ROUTES,
)

"""Storage's API (storage-api.md), one module per resource."""

from vaka_server.routes.storage import (
    blobs,
    branches,
    buckets,
    components,
    configurations,
    events,
    files,
    index,
    jobs,
    metadata,
    remarks,
    rows,
    search,
    tables,
    tokens,
    triggers,
    workspaces,
)

__all__ = ["ROUTES"]

ROUTES = (
    *index.ROUTES,
    *tokens.ROUTES,
    *files.ROUTES,
    *blobs.ROUTES,
    *jobs.ROUTES,
    *buckets.ROUTES,
    *tables.ROUTES,
    *metadata.ROUTES,
    *events.ROUTES,
    *triggers.ROUTES,
    *branches.ROUTES,
    *components.ROUTES,
    *configurations.ROUTES,
    *rows.ROUTES,
    *remarks.ROUTES,
    *search.ROUTES,
    *workspaces.ROUTES,
)

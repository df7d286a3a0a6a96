"""Storage's API (storage-api.md), one module per resource."""

from vaka_server.routes.storage import blobs, files, index, jobs

__all__ = ["ROUTES"]

ROUTES = (*index.ROUTES, *files.ROUTES, *blobs.ROUTES, *jobs.ROUTES)

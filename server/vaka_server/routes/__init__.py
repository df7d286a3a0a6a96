"""The route table: one module per resource. A handler parses, calls the engine, renders."""

from vaka_server.route import Route
from vaka_server.routes import (
    actions,
    audit,
    docker,
    encryption,
    files,
    garbage,
    projects,
    queue,
    queue_api,
    service,
    stats,
    storage,
    tables,
    vault,
)

__all__ = ["all_routes"]


def all_routes() -> tuple[Route, ...]:
    """Every route of the server itself."""
    return (
        *service.ROUTES,
        *docker.ROUTES,
        *actions.ROUTES,
        *encryption.ROUTES,
        *queue.ROUTES,
        *queue_api.ROUTES,
        *stats.ROUTES,
        *storage.ROUTES,
        *tables.ROUTES,
        *files.ROUTES,
        *garbage.ROUTES,
        *audit.ROUTES,
        *projects.ROUTES,
        *vault.ROUTES,
    )

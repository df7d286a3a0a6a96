"""What the server says of itself: root, health, its own description."""

from __future__ import annotations

import socket
from functools import cache
from importlib import metadata

from vaka_server.access import Access
from vaka_server.route import Call, Response, Route


async def root(call: Call) -> Response:
    """`GET /`."""
    return call.runner(
        {
            "host": socket.gethostname(),
            "components": packages(),
            "documentation": f"{call.base}/openapi.json",
        }
    )


async def healthz(call: Call) -> Response:
    """`GET /healthz`: the process answers."""
    return call.runner({"status": "ok"})


async def readyz(call: Call) -> Response:
    """`GET /readyz`: whether jobs can be accepted and run, and if not, why."""
    health = await call.engine.health()
    checks = {"store": health.store, "runtime": health.runtime, "disk": health.disk}
    reasons = {name: reason for name, reason in checks.items() if reason is not None}
    if call.settings.maintenance is not None:
        reasons["maintenance"] = call.settings.maintenance
    warnings = {"warnings": list(health.warnings)} if health.warnings else {}
    if reasons:
        return call.runner({"status": "unavailable", "reasons": reasons, **warnings}, 503)
    return call.runner({"status": "ok", **warnings})


async def openapi(call: Call) -> Response:
    """`GET /openapi.json`."""
    from vaka_server.openapi import describe  # noqa: PLC0415 - schemas are built when asked for

    return call.storage(describe(call.app.view_functions.values(), call.base))


@cache
def packages() -> dict[str, str]:
    """Installed versions of what the server is made of."""
    return {name: metadata.version(name) for name in ("vaka", "quart-trio", "hypercorn", "trio")}


ROUTES = (
    Route("GET", "/", Access.PUBLIC, root, "What answers here", answer="Root"),
    Route("GET", "/healthz", Access.PUBLIC, healthz, "Whether the process answers", answer="Ready"),
    Route(
        "GET",
        "/readyz",
        Access.PUBLIC,
        readyz,
        "Whether jobs can be accepted and run; 503 with the reasons when not",
        answer="Ready",
    ),
    Route(
        "GET",
        "/openapi.json",
        Access.PUBLIC,
        openapi,
        "This description",
        answer="application/json",
    ),
)

"""What the installation has kept and nobody needs any more."""

from __future__ import annotations

from vaka.errors import AccessDenied, InvalidInput
from vaka_server.access import Access
from vaka_server.body import parse_json
from vaka_server.route import Call, Response, Route


async def plan(call: Call) -> Response:
    """`GET /vaka/gc`."""
    await _check(call)
    return call.storage((await call.engine.gc_plan()).to_json())


async def collect(call: Call) -> Response:
    """`POST /vaka/gc`: what a plan of this moment names."""
    await _check(call)
    given = parse_json(await call.raw())
    timeout = given.get("timeout") if isinstance(given, dict) else None
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout < 0
    ):
        raise InvalidInput("'timeout' must be a number of seconds.")
    lines: list[str] = []
    planned = await call.engine.gc_plan()
    report = await call.engine.gc_apply(planned, timeout=timeout, say=lines.append)
    return call.storage({**report.to_json(), "lines": lines})


async def _check(call: Call) -> None:
    """The installation is all projects': only the first one's admin may clean it."""
    projects = await call.engine.catalog.projects()
    if call.project.id != min(projects, key=lambda each: (len(each.id), each.id)).id:
        raise AccessDenied("Only an admin of the installation's first project may collect garbage.")


ROUTES = (
    Route(
        "GET",
        "/vaka/gc",
        Access.ADMIN,
        plan,
        "What may go, why, and how many bytes it takes",
        answer="GarbagePlan",
    ),
    Route(
        "POST",
        "/vaka/gc",
        Access.ADMIN,
        collect,
        "Remove what may go",
        body="GarbageRequest",
        answer="GarbageReport",
    ),
)

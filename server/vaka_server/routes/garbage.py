"""What the installation has kept and nobody needs any more."""

from __future__ import annotations

from vaka.errors import InvalidInput
from vaka_server.access import Access
from vaka_server.route import Call, Response, Route

LONGEST = 1_000_000_000
"""Seconds: a bound that means for ever, and that can be added to a moment."""


async def plan(call: Call) -> Response:
    """`GET /vaka/gc`."""
    await call.check_installation()
    return call.storage((await call.engine.gc_plan()).to_json())


async def collect(call: Call) -> Response:
    """`POST /vaka/gc`: what a plan of this moment names."""
    await call.check_installation()
    given = await call.json()
    timeout = given.get("timeout") if isinstance(given, dict) else None
    if timeout is not None and (
        isinstance(timeout, bool)
        or not isinstance(timeout, int | float)
        or not 0 <= timeout <= LONGEST
    ):
        raise InvalidInput(f"'timeout' must be a number of seconds, {LONGEST} at most.")
    lines: list[str] = []
    planned = await call.engine.gc_plan()
    report = await call.engine.gc_apply(planned, timeout=timeout, say=lines.append)
    return call.storage({**report.to_json(), "lines": lines})


ROUTES = (
    Route(
        "GET",
        "/vaka/gc",
        Access.MASTER,
        plan,
        "What may go, why, and how many bytes it takes",
        answer="GarbagePlan",
    ),
    Route(
        "POST",
        "/vaka/gc",
        Access.MASTER,
        collect,
        "Remove what may go",
        body="GarbageRequest",
        answer="GarbageReport",
        audit="garbage.collected",
    ),
)

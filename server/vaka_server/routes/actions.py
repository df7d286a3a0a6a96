"""Synchronous actions: the caller waits for the container's answer (runner.md sections 1.10 and 8)."""

from __future__ import annotations

from vaka.errors import NotFound
from vaka.models.component import ComponentDefinition
from vaka_server import documents
from vaka_server.access import Access, check_component
from vaka_server.body import parse_json
from vaka_server.requests import action_spec
from vaka_server.route import Call, Response, Route
from vaka_server.routes.docker import RUN_ID_LENGTH, header, members, of_caller


async def act(call: Call, component: str, action: str) -> Response:
    """`POST /{component}/action/{action}`, in the order of runner.md section 1.10.

    A caller who goes away cancels it, and the container with it.
    """
    check_component(call.token, component)
    try:
        registered = await call.gate.component(component)
    except NotFound as error:
        raise NotFound(
            f"Component '{component}' not found", kind="component", id=component
        ) from error
    ComponentDefinition.parse(registered).check_action(action)
    spec = action_spec(members(parse_json(await call.raw())), component, action)
    spec = of_caller(call, spec, run_id=header(call, "X-KBC-RunId", RUN_ID_LENGTH))
    result = await call.engine.act(spec)
    return call.runner(documents.action(result.value))


_SUMMARY = "Run a synchronous action and answer what it prints"

ROUTES = tuple(
    Route(
        "POST",
        f"{prefix}/<component>/action/<action>",
        Access.RUN,
        act,
        _SUMMARY,
        body="ActionRequest",
        answer="application/json",
    )
    for prefix in ("", "/docker")
)

"""Synchronous actions: the caller waits for the container's answer.

They are reached in two ways: as the runner has them (runner.md sections 1.10 and 8), and as the service
of the newer clients has them (storage-api.md section 15).
"""

from __future__ import annotations

from typing import Any

from vaka.errors import InvalidInput, NotFound
from vaka.models.component import ComponentDefinition
from vaka_server import documents
from vaka_server.access import Access, check_component
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
    spec = action_spec(members(await call.json()), component, action)
    spec = of_caller(call, spec, run_id=header(call, "X-KBC-RunId", RUN_ID_LENGTH))
    result = await call.engine.act(spec)
    return call.runner(documents.action(result.value))


async def act_by_body(call: Call) -> Response:
    """`POST /sync-actions/actions`: the body says which action of which component."""
    given = await call.json_object()
    component = _named(given, "componentId")
    action = _named(given, "action")
    definition = await _definition(call, component)
    if action not in definition.synchronous_actions:
        raise InvalidInput(f'Action "{action}" not defined for component "{component}"')
    definition.check_action(action)
    spec = action_spec(given, component, action)
    if spec.branch is not None:
        branch = await call.app.branch_of(call.project.id, spec.branch)
        spec = spec.model_copy(update={"branch": branch})
    result = await call.engine.act(of_caller(call, spec, run_id=call.run_id))
    return call.storage(result.value)


async def list_actions(call: Call) -> Response:
    """`GET /sync-actions/actions?componentId=`."""
    component = call.query.required("componentId")
    definition = await _definition(call, component)
    return call.storage({"actions": list(definition.synchronous_actions)})


async def about(call: Call) -> Response:
    """`GET /sync-actions`."""
    return call.storage({"api": "sync-actions", "documentation": f"{call.base}/openapi.json"})


async def _definition(call: Call, component: str) -> ComponentDefinition:
    call.check_component(component)
    try:
        return ComponentDefinition.parse(await call.gate.component(component))
    except NotFound as error:
        raise NotFound(
            f'Component "{component}" not found', kind="component", id=component
        ) from error


def _named(given: dict[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{name}: is required, as a text.", path=name)
    return value


_SUMMARY = "Run a synchronous action and answer what it prints"

ROUTES = (
    *(
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
    ),
    Route("GET", "/sync-actions", Access.PUBLIC, about, "What answers", answer="application/json"),
    Route(
        "POST",
        "/sync-actions/actions",
        Access.RUN,
        act_by_body,
        _SUMMARY,
        body="SyncAction",
        answer="application/json",
    ),
    Route(
        "GET",
        "/sync-actions/actions",
        Access.READ,
        list_actions,
        "The synchronous actions of a component",
        query={"componentId": "Id of the component."},
        answer="SyncActions",
    ),
)

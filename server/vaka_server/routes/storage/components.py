"""Components, each with its configurations (storage-api.md section 10.1)."""

from __future__ import annotations

from vaka.errors import AccessDenied
from vaka.models.catalog import Configuration, Token
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.problems import Refused
from vaka_server.route import Call, Response, Route
from vaka_server.routes.storage.configurations import DETAILS, configuration_documents

_COMPONENTS = "/v2/storage/components"


async def component(call: Call, component: str) -> Response:
    """`GET /v2/storage/components/{id}`."""
    found = await call.engine.catalog.component(component)
    return call.storage(documents.component(found, call.base))


async def components(call: Call) -> Response:
    """`GET /v2/storage/components`: those that have configurations, or have some in the trash."""
    _check_any(call.token)
    kind = call.query.text("componentType")
    catalog, project = call.engine.catalog, call.project.id
    find = (
        catalog.deleted_configurations if call.query.flag("isDeleted") else catalog.configurations
    )
    found = [
        each
        for each in await find(project, branch=call.branch)
        if call.may_use_component(each.component_id)
    ]
    details = bool(DETAILS & set(call.query.words("include")))
    by_component: dict[str, list[documents.Document]] = {}
    for each, document in zip(found, await _documents(call, found, details), strict=True):
        by_component.setdefault(each.component_id, []).append(document)
    return call.storage(
        [
            {**documents.component(known, call.base), "configurations": by_component[known.id]}
            for known in await catalog.components()
            if known.id in by_component and kind in {None, "", known.type}
        ]
    )


async def put_component(call: Call, component: str) -> Response:
    """`PUT /v2/storage/components/{id}`: register a component, or replace it. Our own.

    Components are all projects': what one is decides what runs with the secrets of each.
    """
    await call.check_installation()
    given = await call.json_object()
    if given.setdefault("id", component) != component:
        raise Refused(400, f"id: must be {component}, as in the path.")
    try:
        found = await call.engine.catalog.put_component(given)
    finally:
        call.gate.components_changed()
    return call.storage(documents.component(found, call.base))


async def _documents(
    call: Call, found: list[Configuration], details: bool
) -> list[documents.Document]:
    if details:
        return await configuration_documents(call, found)
    return [documents.configuration(each, details=False) for each in found]


def _check_any(token: Token) -> None:
    """`AccessDenied` for a token that may use no component at all."""
    if token.component_access == ():
        raise AccessDenied(f"Token {token.id} has no access to any component.")


ROUTES = (
    Route(
        "GET",
        _COMPONENTS,
        Access.READ,
        components,
        "Components that have configurations",
        query={
            "componentType": "Only this type",
            "include": "configuration, rows, state: any of them shows all three",
            "isDeleted": "Those that have configurations in the trash, with these",
        },
        answer="Component[]",
        branch=True,
    ),
    Route(
        "GET",
        f"{_COMPONENTS}/<component>",
        Access.PUBLIC,
        component,
        "One component",
        answer="Component",
        branch=True,
    ),
    Route(
        "PUT",
        f"{_COMPONENTS}/<component>",
        Access.MASTER,
        put_component,
        "Register a component, or replace it",
        body="NewComponent",
        answer="Component",
        audit="component.registered",
    ),
)

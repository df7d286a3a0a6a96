"""Components, configurations, rows and state (storage-api.md section 10)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaka.errors import Conflict, NotFound
from vaka.models.catalog import Component, Configuration, State, Token
from vaka_server import documents
from vaka_server.access import Access, check_component
from vaka_server.body import parse_object
from vaka_server.problems import Refused, conflict_is
from vaka_server.requests import changes_of, expected_version, flag, stored_object
from vaka_server.route import Call, Response, Route

VERSION_CONFLICT = "storage.components.configurations.versionConflict"
EXISTS = "configurationAlreadyExists"


# -- components ------------------------------------------------------------------------------------


async def component(call: Call, component: str) -> Response:
    """`GET /v2/storage/components/{id}`."""
    found = await call.engine.catalog.component(component)
    return call.storage(documents.component(found, call.base))


async def components(call: Call) -> Response:
    """`GET /v2/storage/components`: those with a configuration, each with its configurations."""
    details = bool({"configuration", "rows", "state"} & set(call.words("include")))
    kind = call.text("componentType")
    by_component: dict[str, list[Configuration]] = {}
    for each in await call.engine.catalog.configurations(call.project.id):
        by_component.setdefault(each.component_id, []).append(each)
    answer: list[documents.Document] = []
    for known in await call.engine.catalog.components():
        if known.id not in by_component or not _visible(call.token, known, kind):
            continue
        document = documents.component(known, call.base)
        document["configurations"] = [
            await _document(call, each) if details else documents.configuration(each, details=False)
            for each in by_component[known.id]
        ]
        answer.append(document)
    return call.storage(answer)


async def put_component(call: Call, component: str) -> Response:
    """`PUT /v2/storage/components/{id}`: register a component, or replace it. Our own."""
    given = parse_object(await call.raw())
    if given.setdefault("id", component) != component:
        raise Refused(400, f"id: must be {component}, as in the path.")
    try:
        found = await call.engine.catalog.put_component(given)
    finally:
        call.gate.components_changed()
    return call.storage(documents.component(found, call.base))


# -- configurations --------------------------------------------------------------------------------


async def configs(call: Call, component: str) -> Response:
    """`GET …/configs`."""
    await _component(call, component)
    found = await call.engine.catalog.configurations(call.project.id, component)
    return call.storage([await _document(call, each) for each in found])


async def config(call: Call, component: str, config: str) -> Response:
    """`GET …/configs/{id}`."""
    return call.storage(await _document(call, await _config(call, component, config)))


async def create_config(call: Call, component: str) -> Response:
    """`POST …/configs`."""
    await _component(call, component)
    given = parse_object(await call.raw())
    if not isinstance(given.get("name"), str) or not given["name"]:
        raise Refused(400, "name: is required.", code="storage.components.validation")
    wanted = given.get("configurationId")
    with conflict_is(400, EXISTS):
        created = await call.engine.catalog.create_configuration(
            call.project.id,
            component,
            given["name"],
            config_id=None if wanted in (None, "") else str(wanted),
            description=str(given.get("description") or ""),
            configuration=stored_object(given, "configuration"),
            is_disabled=flag(given, "isDisabled"),
            change_description=str(given.get("changeDescription") or "Configuration created"),
            token=call.token,
        )
    if given.get("state") is not None:
        await _put_state(call, component, created.id, None, given)
    return call.storage(await _document(call, created), 201)


async def update_config(call: Call, component: str, config: str) -> Response:
    """`PUT …/configs/{id}`; our own `expectedVersion` refuses to overwrite what is newer."""
    await _component(call, component)
    given = parse_object(await call.raw())
    changes = changes_of(given)
    if changes:
        with conflict_is(409, VERSION_CONFLICT):
            await call.engine.catalog.update_configuration(
                call.project.id,
                component,
                config,
                changes,
                change_description=str(given.get("changeDescription") or "Configuration updated"),
                expected_version=expected_version(given),
                token=call.token,
            )
    if given.get("state") is not None:
        await _put_state(call, component, config, None, {"state": given["state"]})
    return call.storage(await _document(call, await _config(call, component, config)))


async def delete_config(call: Call, component: str, config: str) -> Response:
    """`DELETE …/configs/{id}`: to the trash; a second time for good."""
    check_component(call.token, component)
    await call.engine.catalog.delete_configuration(
        call.project.id, component, config, token=call.token
    )
    return Response(b"", 204)


async def versions(call: Call, component: str, config: str) -> Response:
    """`GET …/configs/{id}/versions`."""
    check_component(call.token, component)
    found = await call.engine.catalog.configuration_versions(call.project.id, component, config)
    return call.storage([documents.version(each) for each in found])


async def version(call: Call, component: str, config: str, version: int) -> Response:
    """`GET …/configs/{id}/versions/{v}`."""
    check_component(call.token, component)
    found = await call.engine.catalog.configuration_versions(call.project.id, component, config)
    for each in found:
        if each.version == version:
            return call.storage(documents.version(each, details=True))
    raise NotFound(f"Version {version} not found", kind="version", id=str(version))


async def state(call: Call, component: str, config: str) -> Response:
    """`GET …/configs/{id}/state`: our own, the state with its version."""
    check_component(call.token, component)
    found = await call.engine.catalog.state(call.project.id, component, config)
    return call.storage(_state(found))


async def put_state(call: Call, component: str, config: str) -> Response:
    """`PUT …/configs/{id}/state`."""
    check_component(call.token, component)
    given = parse_object(await call.raw())
    await _put_state(call, component, config, None, given)
    return call.storage(await _document(call, await _config(call, component, config)))


# -- rows ------------------------------------------------------------------------------------------


async def rows(call: Call, component: str, config: str) -> Response:
    """`GET …/rows`."""
    document = await _document(call, await _config(call, component, config))
    return call.storage(document["rows"])


async def row(call: Call, component: str, config: str, row: str) -> Response:
    """`GET …/rows/{r}`."""
    return call.storage(await _row(call, component, config, row))


async def create_row(call: Call, component: str, config: str) -> Response:
    """`POST …/rows`."""
    check_component(call.token, component)
    given = parse_object(await call.raw())
    wanted = given.get("rowId")
    with conflict_is(400, EXISTS):
        created = await call.engine.catalog.create_row(
            call.project.id,
            component,
            config,
            row_id=None if wanted in (None, "") else str(wanted),
            name=str(given.get("name") or ""),
            description=str(given.get("description") or ""),
            configuration=stored_object(given, "configuration"),
            is_disabled=flag(given, "isDisabled"),
            change_description=str(given.get("changeDescription") or ""),
            token=call.token,
        )
    if given.get("state") is not None:
        await _put_state(call, component, config, created.id, given)
    return call.storage(await _row(call, component, config, created.id), 201)


async def update_row(call: Call, component: str, config: str, row: str) -> Response:
    """`PUT …/rows/{r}`."""
    check_component(call.token, component)
    given = parse_object(await call.raw())
    changes = changes_of(given)
    changes.pop("rows_sort_order", None)
    if changes:
        await call.engine.catalog.update_row(
            call.project.id,
            component,
            config,
            row,
            changes,
            change_description=str(given.get("changeDescription") or ""),
            token=call.token,
        )
    if given.get("state") is not None:
        await _put_state(call, component, config, row, {"state": given["state"]})
    return call.storage(await _row(call, component, config, row))


async def delete_row(call: Call, component: str, config: str, row: str) -> Response:
    """`DELETE …/rows/{r}`."""
    check_component(call.token, component)
    await call.engine.catalog.delete_row(call.project.id, component, config, row, token=call.token)
    return Response(b"", 204)


async def row_state(call: Call, component: str, config: str, row: str) -> Response:
    """`GET …/rows/{r}/state`: our own, the state with its version."""
    check_component(call.token, component)
    found = await call.engine.catalog.state(call.project.id, component, config, row)
    return call.storage(_state(found))


async def put_row_state(call: Call, component: str, config: str, row: str) -> Response:
    """`PUT …/rows/{r}/state`."""
    check_component(call.token, component)
    given = parse_object(await call.raw())
    await _put_state(call, component, config, row, given)
    return call.storage(await _row(call, component, config, row))


def _state(found: State) -> documents.Document:
    return {"state": {} if found.value is None else found.value, "version": found.version}


def _visible(token: Token, component: Component, kind: str | None) -> bool:
    allowed = token.component_access is None or component.id in token.component_access
    return allowed and kind in (None, component.type)


async def _component(call: Call, component: str) -> None:
    check_component(call.token, component)
    await call.engine.catalog.component(component)


async def _config(call: Call, component: str, config: str) -> Configuration:
    check_component(call.token, component)
    return await call.engine.catalog.configuration(call.project.id, component, config)


async def _row(call: Call, component: str, config: str, row: str) -> documents.Document:
    found = await _config(call, component, config)
    for each in found.rows:
        if each.id == row:
            state = await call.engine.catalog.state(call.project.id, component, config, row)
            return documents.row(each, state, found)
    raise NotFound(f"Row {row} not found", kind="row", id=row)


async def _document(call: Call, found: Configuration) -> documents.Document:
    """A configuration with its state and its rows' states."""
    catalog, project = call.engine.catalog, call.project.id
    own = await catalog.state(project, found.component_id, found.id)
    of_rows = {
        each.id: await catalog.state(project, found.component_id, found.id, each.id)
        for each in found.rows
    }
    return documents.configuration(found, state=own, row_states=of_rows)


async def _put_state(
    call: Call, component: str, config: str, row: str | None, given: Mapping[str, Any]
) -> None:
    try:
        await call.engine.catalog.put_state(
            call.project.id,
            component,
            config,
            row,
            stored_object(given, "state"),
            expected_version=expected_version(given),
        )
    except Conflict as error:
        raise Refused(409, error.message, code=VERSION_CONFLICT) from error


_CONFIGS = "/v2/storage/components/<component>/configs"
_CONFIG = f"{_CONFIGS}/<config>"
_ROWS = f"{_CONFIG}/rows"
_ROW = f"{_ROWS}/<row>"
_INCLUDE = {"include": "configuration, rows, state: show all three"}

ROUTES = (
    Route(
        "GET",
        "/v2/storage/components",
        Access.READ,
        components,
        "Components that have configurations",
        query={"componentType": "Only this type", **_INCLUDE},
        answer="Component[]",
    ),
    Route(
        "GET",
        "/v2/storage/components/<component>",
        Access.PUBLIC,
        component,
        "One component",
        answer="Component",
    ),
    Route(
        "PUT",
        "/v2/storage/components/<component>",
        Access.ADMIN,
        put_component,
        "Register a component, or replace it",
        body="NewComponent",
        answer="Component",
    ),
    Route("GET", _CONFIGS, Access.READ, configs, "Configurations", answer="Configuration[]"),
    Route(
        "POST",
        _CONFIGS,
        Access.ADMIN,
        create_config,
        "Store a configuration",
        body="NewConfiguration",
        answer="Configuration",
        status=201,
    ),
    Route("GET", _CONFIG, Access.READ, config, "One configuration", answer="Configuration"),
    Route(
        "PUT",
        _CONFIG,
        Access.ADMIN,
        update_config,
        "Change a configuration",
        body="ConfigurationChanges",
        answer="Configuration",
    ),
    Route("DELETE", _CONFIG, Access.ADMIN, delete_config, "Remove a configuration", status=204),
    Route("GET", f"{_CONFIG}/versions", Access.READ, versions, "Versions", answer="Version[]"),
    Route(
        "GET",
        f"{_CONFIG}/versions/<int:version>",
        Access.READ,
        version,
        "One version",
        answer="VersionDetail",
    ),
    Route("GET", f"{_CONFIG}/state", Access.READ, state, "State", answer="State"),
    Route(
        "PUT",
        f"{_CONFIG}/state",
        Access.ADMIN,
        put_state,
        "Replace the state",
        body="NewState",
        answer="Configuration",
    ),
    Route("GET", _ROWS, Access.READ, rows, "Rows", answer="Row[]"),
    Route(
        "POST",
        _ROWS,
        Access.ADMIN,
        create_row,
        "Store a row",
        body="NewRow",
        answer="Row",
        status=201,
    ),
    Route("GET", _ROW, Access.READ, row, "One row", answer="Row"),
    Route(
        "PUT",
        _ROW,
        Access.ADMIN,
        update_row,
        "Change a row",
        body="ConfigurationChanges",
        answer="Row",
    ),
    Route("DELETE", _ROW, Access.ADMIN, delete_row, "Remove a row", status=204),
    Route("GET", f"{_ROW}/state", Access.READ, row_state, "State of a row", answer="State"),
    Route(
        "PUT",
        f"{_ROW}/state",
        Access.ADMIN,
        put_row_state,
        "Replace the state of a row",
        body="NewState",
        answer="Row",
    ),
)

"""Rows of configurations, with their versions and state (storage-api.md section 10.3)."""

from __future__ import annotations

from vaka.errors import NotFound
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.problems import conflict_is
from vaka_server.route import Call, Response, Route
from vaka_server.routes.storage.configurations import (
    CONFIG,
    EXISTS,
    INVALID,
    PAGE,
    changes_of,
    configuration_documents,
    included,
    page,
    put_given_state,
    store_state,
    stored,
)


async def rows(call: Call, component: str, config: str) -> Response:
    """`GET …/rows`."""
    (document,) = await configuration_documents(call, [await stored(call, component, config)])
    return call.storage(document["rows"])


async def row(call: Call, component: str, config: str, row: str) -> Response:
    """`GET …/rows/{r}`."""
    return await _answer(call, component, config, row)


async def create_row(call: Call, component: str, config: str) -> Response:
    """`POST …/rows`."""
    call.check_component(component)
    given = await call.fields(code=INVALID)
    with conflict_is(400, EXISTS):
        created = await call.engine.catalog.create_row(
            call.project.id,
            component,
            config,
            row_id=given.text("rowId") or None,
            name=given.text("name", ""),
            description=given.text("description", ""),
            configuration=given.json("configuration"),
            is_disabled=given.flag("isDisabled"),
            state=given.json("state"),
            change_description=given.text("changeDescription", ""),
            token=call.token,
            branch=call.branch,
        )
    return await _answer(call, component, config, created.id, 201)


async def update_row(call: Call, component: str, config: str, row: str) -> Response:
    """`PUT …/rows/{r}`."""
    call.check_component(component)
    given = await call.fields(code=INVALID)
    changes, state = changes_of(given), given.json("state")
    if changes:
        await call.engine.catalog.update_row(
            call.project.id,
            component,
            config,
            row,
            changes,
            change_description=given.text("changeDescription", ""),
            token=call.token,
            branch=call.branch,
        )
    if state is not None:
        await store_state(call, component, config, row, state)
    return await _answer(call, component, config, row)


async def delete_row(call: Call, component: str, config: str, row: str) -> Response:
    """`DELETE …/rows/{r}`; its body may say why."""
    call.check_component(component)
    given = await call.fields(code=INVALID)
    await call.engine.catalog.delete_row(
        call.project.id,
        component,
        config,
        row,
        change_description=given.text("changeDescription", ""),
        token=call.token,
        branch=call.branch,
    )
    return Response(b"", 204)


async def versions(call: Call, component: str, config: str, row: str) -> Response:
    """`GET …/rows/{r}/versions`."""
    call.check_component(component)
    catalog, here = call.engine.catalog, (call.project.id, component, config, row)
    limit, offset = page(call)
    found = await catalog.row_versions(*here, limit=limit, offset=offset, branch=call.branch)
    include = included(call)
    state = None
    if "state" in include:
        state = await catalog.state(*here, branch=call.branch)
    return call.storage([documents.version(each, include=include, state=state) for each in found])


async def version(call: Call, component: str, config: str, row: str, version: int) -> Response:
    """`GET …/rows/{r}/versions/{v}`."""
    call.check_component(component)
    found = await call.engine.catalog.row_version(
        call.project.id, component, config, row, version, branch=call.branch
    )
    include = frozenset({"name", "description", "configuration"})
    return call.storage(documents.version(found, include=include))


async def rollback_row(call: Call, component: str, config: str, row: str, version: int) -> Response:
    """`POST …/rows/{r}/versions/{v}/rollback`."""
    call.check_component(component)
    given = await call.fields(code=INVALID)
    await call.engine.catalog.rollback_row(
        call.project.id,
        component,
        config,
        row,
        version,
        change_description=given.text("changeDescription", ""),
        token=call.token,
        branch=call.branch,
    )
    return await _answer(call, component, config, row, 201)


async def copy_row(call: Call, component: str, config: str, row: str, version: int) -> Response:
    """`POST …/rows/{r}/versions/{v}/create`: a new row, here or in `targetConfigId`."""
    call.check_component(component)
    given = await call.fields(code=INVALID)
    target = given.text("targetConfigId") or config
    made = await call.engine.catalog.copy_row(
        call.project.id,
        component,
        config,
        row,
        version,
        target=target,
        change_description=given.text("changeDescription", ""),
        token=call.token,
        branch=call.branch,
    )
    return await _answer(call, component, target, made.id, 201)


async def state(call: Call, component: str, config: str, row: str) -> Response:
    """`GET …/rows/{r}/state`: our own, the state with its version."""
    call.check_component(component)
    found = await call.engine.catalog.state(
        call.project.id, component, config, row, branch=call.branch
    )
    return call.storage(documents.state(found))


async def put_state(call: Call, component: str, config: str, row: str) -> Response:
    """`PUT …/rows/{r}/state`."""
    call.check_component(component)
    await put_given_state(call, component, config, row)
    return await _answer(call, component, config, row)


async def _answer(call: Call, component: str, config: str, row: str, status: int = 200) -> Response:
    """The row as it is now."""
    found = await stored(call, component, config)
    for each in found.rows:
        if each.id == row:
            state = await call.engine.catalog.state(
                call.project.id, component, config, row, branch=call.branch
            )
            return call.storage(documents.row(each, state), status)
    raise NotFound(f"Row {row} not found", kind="row", id=row)


_ROWS = f"{CONFIG}/rows"
_ROW = f"{_ROWS}/<row>"
_VERSION = f"{_ROW}/versions/<int:version>"

ROUTES = (
    Route("GET", _ROWS, Access.READ, rows, "Rows", answer="Row[]", branch=True),
    Route(
        "POST",
        _ROWS,
        Access.ADMIN,
        create_row,
        "Store a row",
        body="NewRow",
        answer="Row",
        status=201,
        branch=True,
    ),
    Route("GET", _ROW, Access.READ, row, "One row", answer="Row", branch=True),
    Route(
        "PUT",
        _ROW,
        Access.ADMIN,
        update_row,
        "Change a row",
        body="RowChanges",
        answer="Row",
        branch=True,
    ),
    Route(
        "DELETE",
        _ROW,
        Access.ADMIN,
        delete_row,
        "Remove a row",
        body="Change",
        status=204,
        branch=True,
    ),
    Route(
        "GET",
        f"{_ROW}/versions",
        Access.READ,
        versions,
        "Versions of a row, newest first",
        query=PAGE,
        answer="Version[]",
        branch=True,
    ),
    Route(
        "GET", _VERSION, Access.READ, version, "One version of a row", answer="Version", branch=True
    ),
    Route(
        "POST",
        f"{_VERSION}/rollback",
        Access.ADMIN,
        rollback_row,
        "Make a version what the row is",
        body="Change",
        answer="Row",
        status=201,
        branch=True,
    ),
    Route(
        "POST",
        f"{_VERSION}/create",
        Access.ADMIN,
        copy_row,
        "Copy a version to a new row",
        body="RowCopy",
        answer="Row",
        status=201,
        branch=True,
    ),
    Route(
        "GET", f"{_ROW}/state", Access.READ, state, "State of a row", answer="State", branch=True
    ),
    Route(
        "PUT",
        f"{_ROW}/state",
        Access.ADMIN,
        put_state,
        "Replace the state of a row",
        body="NewState",
        answer="Row",
        branch=True,
    ),
)

"""Workspaces (storage-api.md section 12): records without a warehouse behind them."""

from __future__ import annotations

from vaka.errors import NotFound
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.route import Call, Response, Route, absent
from vaka_server.routes.storage import jobs
from vaka_server.routes.storage.configurations import CONFIG, stored

_WORKSPACES = "/v2/storage/workspaces"
_WORKSPACE = f"{_WORKSPACES}/<int:workspace>"
_OF_CONFIG = f"{CONFIG}/workspaces"
_WAREHOUSE = "Working in a workspace, behind which there is no warehouse,"


async def workspaces(call: Call) -> Response:
    """`GET /v2/storage/workspaces`."""
    found = await call.engine.catalog.workspaces(call.project.id, branch=call.branch)
    return call.storage(
        [documents.workspace(each) for each in found if call.may_use_component(each.component_id)]
    )


async def workspace(call: Call, workspace: int) -> Response:
    """`GET /v2/storage/workspaces/{id}`."""
    for each in await call.engine.catalog.workspaces(call.project.id, branch=call.branch):
        if each.id == workspace:
            call.check_component(each.component_id)
            return call.storage(documents.workspace(each))
    raise _no_workspace(workspace)


async def delete_workspace(call: Call, workspace: int) -> Response:
    """`DELETE /v2/storage/workspaces/{id}`: strikes it off the record."""
    for each in await call.engine.catalog.workspaces(call.project.id, branch=call.branch):
        if each.id == workspace:
            call.check_component(each.component_id)
    await call.engine.catalog.delete_workspace(call.project.id, workspace, branch=call.branch)
    return Response(b"", 204)


async def config_workspaces(call: Call, component: str, config: str) -> Response:
    """`GET …/configs/{id}/workspaces`."""
    found = await stored(call, component, config)
    return call.storage(
        [
            documents.workspace(each)
            for each in await call.engine.catalog.workspaces(call.project.id, branch=call.branch)
            if (each.component_id, each.config_id) == (found.component_id, found.id)
        ]
    )


async def create_workspace(call: Call, component: str, config: str) -> Response:
    """`POST …/configs/{id}/workspaces`: a Storage job whose result has the id."""
    await stored(call, component, config)
    given = await call.fields()
    params = {
        "componentId": component,
        "configurationId": config,
        "branchId": call.branch,
        "readOnlyStorageAccess": given.flag("readOnlyStorageAccess"),
    }
    return await jobs.submitted(call, "workspaceCreate", params)


def _no_workspace(workspace: int) -> NotFound:
    return NotFound(f"Workspace {workspace} not found", kind="workspace", id=str(workspace))


ROUTES = (
    Route(
        "GET",
        _WORKSPACES,
        Access.READ,
        workspaces,
        "Workspaces on record",
        answer="Workspace[]",
        branch=True,
    ),
    Route(
        "GET", _WORKSPACE, Access.READ, workspace, "One workspace", answer="Workspace", branch=True
    ),
    Route(
        "DELETE",
        _WORKSPACE,
        Access.ADMIN,
        delete_workspace,
        "Strike a workspace off the record",
        status=204,
        branch=True,
    ),
    Route(
        "GET",
        _OF_CONFIG,
        Access.READ,
        config_workspaces,
        "Workspaces of a configuration",
        answer="Workspace[]",
        branch=True,
    ),
    Route(
        "POST",
        _OF_CONFIG,
        Access.ADMIN,
        create_workspace,
        "Put a workspace on record",
        body="NewWorkspace",
        answer="StorageJob",
        status=202,
        branch=True,
    ),
    absent("POST", _WORKSPACES, "A workspace without a configuration", branch=True),
    *(
        absent("POST", f"{_WORKSPACE}/{action}", _WAREHOUSE, branch=True)
        for action in (
            "load",
            "load-clone",
            "query",
            "password",
            "public-key",
            "unload",
            "credentials",
        )
    ),
)

"""Metadata of configurations and branches (storage-api.md section 8)."""

from __future__ import annotations

from vaka_server import documents
from vaka_server.access import Access
from vaka_server.route import Call, Response, Route
from vaka_server.routes.storage.configurations import CONFIG
from vaka_server.routes.storage.metadata import entries


async def config_metadata(call: Call, component: str, config: str) -> Response:
    """`GET …/configs/{id}/metadata`."""
    return await _list(call, component, config)


async def put_config_metadata(call: Call, component: str, config: str) -> Response:
    """`POST …/configs/{id}/metadata`: answers with all there is then."""
    return await _put(call, component, config)


async def delete_config_metadata(call: Call, component: str, config: str, entry: str) -> Response:
    """`DELETE …/configs/{id}/metadata/{entry}`."""
    return await _delete(call, entry, component, config)


async def branch_metadata(call: Call) -> Response:
    """`GET /v2/storage/branch/{b}/metadata`."""
    return await _list(call)


async def put_branch_metadata(call: Call) -> Response:
    """`POST /v2/storage/branch/{b}/metadata`: answers with all there is then."""
    return await _put(call)


async def delete_branch_metadata(call: Call, entry: str) -> Response:
    """`DELETE /v2/storage/branch/{b}/metadata/{entry}`."""
    return await _delete(call, entry)


async def _list(call: Call, component: str | None = None, config: str | None = None) -> Response:
    _check(call, component)
    found = await call.engine.catalog.metadata(
        call.project.id, component_id=component, config_id=config, branch=call.branch
    )
    return call.storage(documents.remarks(found))


async def _put(call: Call, component: str | None = None, config: str | None = None) -> Response:
    _check(call, component)
    values = entries((await call.fields()).get("metadata"), "metadata")
    found = await call.engine.catalog.put_metadata(
        call.project.id, values, component_id=component, config_id=config, branch=call.branch
    )
    return call.storage(documents.remarks(found), 201)


async def _delete(
    call: Call, entry: str, component: str | None = None, config: str | None = None
) -> Response:
    _check(call, component)
    await call.engine.catalog.delete_metadata(
        call.project.id, entry, component_id=component, config_id=config, branch=call.branch
    )
    return Response(b"", 204)


def _check(call: Call, component: str | None) -> None:
    if component is not None:
        call.check_component(component)


_OF_CONFIG = f"{CONFIG}/metadata"
_OF_BRANCH = "/v2/storage/metadata"

ROUTES = (
    Route(
        "GET",
        _OF_CONFIG,
        Access.READ,
        config_metadata,
        "Metadata of a configuration",
        answer="Remark[]",
        branch=True,
    ),
    Route(
        "POST",
        _OF_CONFIG,
        Access.ADMIN,
        put_config_metadata,
        "Set metadata of a configuration",
        body="NewRemarks",
        answer="Remark[]",
        status=201,
        branch=True,
    ),
    Route(
        "DELETE",
        f"{_OF_CONFIG}/<entry>",
        Access.ADMIN,
        delete_config_metadata,
        "Remove an entry of a configuration's metadata",
        status=204,
        branch=True,
    ),
    Route(
        "GET",
        _OF_BRANCH,
        Access.READ,
        branch_metadata,
        "Metadata of a branch",
        answer="Remark[]",
        branch="only",
    ),
    Route(
        "POST",
        _OF_BRANCH,
        Access.MASTER,
        put_branch_metadata,
        "Set metadata of a branch",
        body="NewRemarks",
        answer="Remark[]",
        status=201,
        branch="only",
    ),
    Route(
        "DELETE",
        f"{_OF_BRANCH}/<entry>",
        Access.MASTER,
        delete_branch_metadata,
        "Remove an entry of a branch's metadata",
        status=204,
        branch="only",
    ),
)

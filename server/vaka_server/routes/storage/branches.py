"""Branches: as Storage's clients know them (storage-api.md section 9), and our own form of them."""

from __future__ import annotations

from vaka.errors import NotFound
from vaka.models.catalog import Branch
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.problems import Refused, conflict_is
from vaka_server.route import Call, Response, Route
from vaka_server.routes.storage import jobs

DUPLICATE = "devBranch.duplicateName"


async def dev_branches(call: Call) -> Response:
    """`GET /v2/storage/dev-branches`: the default one first."""
    found = await call.engine.catalog.branches(call.project.id)
    return call.storage([documents.dev_branch(each) for each in found])


async def dev_branch(call: Call, branch: str) -> Response:
    """`GET /v2/storage/dev-branches/{id}`; `default` is the default one."""
    return call.storage(documents.dev_branch(await _branch(call, branch)))


async def create_dev_branch(call: Call) -> Response:
    """`POST /v2/storage/dev-branches`: a Storage job whose result is the branch."""
    given = await call.fields()
    name = given.required("name")
    for each in await call.engine.catalog.branches(call.project.id):
        if each.name == name:
            raise Refused(400, f'There already is a branch with name "{name}"', code=DUPLICATE)
    params = {"name": name, "description": given.text("description", "")}
    return await jobs.submitted(call, "devBranchCreate", params)


async def delete_dev_branch(call: Call, branch: str) -> Response:
    """`DELETE /v2/storage/dev-branches/{id}`: a Storage job."""
    found = await _branch(call, branch)
    if found.is_default:
        raise Refused(400, "Cannot delete Main branch")
    params = {"branchId": documents.number(found.id)}
    return await jobs.submitted(call, "devBranchDelete", params)


async def update_dev_branch(call: Call, branch: str) -> Response:
    """`PUT /v2/storage/dev-branches/{id}`."""
    given = await call.fields()
    found = await _branch(call, branch)
    with conflict_is(400, DUPLICATE):
        changed = await call.engine.catalog.update_branch(
            call.project.id,
            found.id,
            name=given.text("name"),
            description=given.text("description"),
        )
    return call.storage(documents.dev_branch(changed))


async def _branch(call: Call, branch: str) -> Branch:
    for each in await call.engine.catalog.branches(call.project.id):
        if branch == each.id or (branch == "default" and each.is_default):
            return each
    raise NotFound("Branch not found", kind="branch", id=branch)


# -- our own ---------------------------------------------------------------------------------------


async def branches(call: Call) -> Response:
    """`GET /vaka/branches`: the default one first."""
    found = await call.engine.catalog.branches(call.project.id)
    return call.storage([documents.branch(each) for each in found])


async def create_branch(call: Call) -> Response:
    """`POST /vaka/branches`."""
    given = await call.json_object()
    name, description = given.get("name"), given.get("description", "")
    if not isinstance(name, str) or not isinstance(description, str):
        raise Refused(400, "name: must be a text, and so must be description.")
    made = await call.engine.catalog.create_branch(
        call.project.id, name, description=description, token=call.token
    )
    call.subject["branch"] = made.id
    return call.storage(documents.branch(made), 201)


async def delete_branch(call: Call, branch: str) -> Response:
    """`DELETE /vaka/branches/{id}`."""
    await call.engine.delete_branch(call.project.id, branch)
    return Response(b"", 204)


_DEV_BRANCHES = "/v2/storage/dev-branches"

ROUTES = (
    Route(
        "GET",
        _DEV_BRANCHES,
        Access.READ,
        dev_branches,
        "The branches of the project, the default one first",
        answer="DevBranch[]",
    ),
    Route(
        "GET",
        f"{_DEV_BRANCHES}/<branch>",
        Access.READ,
        dev_branch,
        "One branch, or the default one",
        answer="DevBranch",
    ),
    Route(
        "PUT",
        f"{_DEV_BRANCHES}/<branch>",
        Access.MASTER,
        update_dev_branch,
        "Change what a branch is called",
        body="BranchChanges",
        answer="DevBranch",
        audit="branch.changed",
    ),
    Route(
        "POST",
        _DEV_BRANCHES,
        Access.MASTER,
        create_dev_branch,
        "Create a development branch",
        body="NewBranch",
        answer="StorageJob",
        status=202,
        audit="branch.created",
    ),
    Route(
        "DELETE",
        f"{_DEV_BRANCHES}/<branch>",
        Access.MASTER,
        delete_dev_branch,
        "Delete a development branch with all that only it has",
        answer="StorageJob",
        status=202,
        audit="branch.removed",
    ),
    Route(
        "GET",
        "/vaka/branches",
        Access.READ,
        branches,
        "The branches of the project, the default one first",
        answer="Branch[]",
    ),
    Route(
        "POST",
        "/vaka/branches",
        Access.MASTER,
        create_branch,
        "Create a development branch",
        body="NewBranch",
        answer="Branch",
        status=201,
        audit="branch.created",
    ),
    Route(
        "DELETE",
        "/vaka/branches/<branch>",
        Access.MASTER,
        delete_branch,
        "Delete a development branch, its states, and what a Storage that keeps branches apart has",
        status=204,
        audit="branch.removed",
    ),
)

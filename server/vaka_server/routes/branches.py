"""Development branches of a project. All of it is our own."""

from __future__ import annotations

from vaka_server import documents
from vaka_server.access import Access
from vaka_server.body import parse_object
from vaka_server.problems import Refused
from vaka_server.route import Call, Response, Route
from vaka_server.routes.tokens import check_unlimited


async def branches(call: Call) -> Response:
    """`GET /vaka/branches`: the default one first."""
    found = await call.engine.catalog.branches(call.project.id)
    return call.storage([documents.branch(each) for each in found])


async def create_branch(call: Call) -> Response:
    """`POST /vaka/branches`."""
    check_unlimited(call.token)
    given = parse_object(await call.raw())
    name, description = given.get("name"), given.get("description", "")
    if not isinstance(name, str) or not isinstance(description, str):
        raise Refused(400, "name: must be a text, and so must be description.")
    made = await call.engine.catalog.create_branch(
        call.project.id, name, description=description, token=call.token
    )
    return call.storage(documents.branch(made), 201)


async def delete_branch(call: Call, branch: str) -> Response:
    """`DELETE /vaka/branches/{id}`."""
    check_unlimited(call.token)
    await call.engine.delete_branch(call.project.id, branch)
    return Response(b"", 204)


ROUTES = (
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
        Access.ADMIN,
        create_branch,
        "Create a development branch",
        body="NewBranch",
        answer="Branch",
        status=201,
    ),
    Route(
        "DELETE",
        "/vaka/branches/<branch>",
        Access.ADMIN,
        delete_branch,
        "Delete a development branch, its states, and what a Storage that keeps branches apart has",
        status=204,
    ),
)

"""The projects of the installation, for admins of its first one. All of it is our own."""

from __future__ import annotations

from vaka.engine import FIRST_FEATURES
from vaka.models.catalog import Role
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.route import Call, Response, Route


async def projects(call: Call) -> Response:
    """`GET /vaka/projects`."""
    await call.check_installation()
    found = await call.engine.catalog.projects()
    return call.storage([documents.project(each) for each in found])


async def create(call: Call) -> Response:
    """`POST /vaka/projects`: a project and its first admin token, whose secret is shown only now."""
    await call.check_installation()
    given = await call.fields()
    catalog = call.engine.catalog
    made = await catalog.create_project(
        given.required("name"), features=[*FIRST_FEATURES, *given.words("features")]
    )
    token, secret = await catalog.create_token(made.id, "admin", Role.ADMIN)
    call.subject.update(project=made.id, token=token.id)
    call.noted["name"] = made.name
    answer = {**documents.project(made), "token": secret}
    return call.storage(answer, 201)


ROUTES = (
    Route(
        "GET", "/vaka/projects", Access.MASTER, projects, "List projects", answer="ProjectDetail[]"
    ),
    Route(
        "POST",
        "/vaka/projects",
        Access.MASTER,
        create,
        "Make a project; the secret of its first admin token is in this answer and nowhere else",
        body="NewProject",
        answer="ProjectDetail",
        status=201,
        audit="project.created",
    ),
)

"""The audit log: who did what. All of it is our own."""

from __future__ import annotations

from vaka.models.audit import AuditQuery
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.route import Call, Response, Route

LIMIT = 100
MOST = 10_000


async def audit(call: Call) -> Response:
    """`GET /vaka/audit`: of the project, newest first; with `all` of the whole installation."""
    query = call.query
    project: str | None = call.project.id
    if query.flag("all"):
        await call.check_installation()
        project = None
    found = await call.engine.audit.entries(
        AuditQuery(
            project=project,
            kind=query.text("kind") or None,
            token_id=query.text("token") or None,
            since=query.moment("since"),
            until=query.moment("until"),
            before=query.whole("before", None, most=1 << 53),
            limit=query.whole("limit", LIMIT, least=1, most=MOST),
        )
    )
    return call.storage([documents.audit_entry(each) for each in found])


ROUTES = (
    Route(
        "GET",
        "/vaka/audit",
        Access.MASTER,
        audit,
        "The audit log of the project, newest first",
        query={
            "all": "1 shows the whole installation's, to admins of its first project",
            "kind": "Entries of this kind, such as token.created, or of all that begin with it",
            "token": "Done with this token, or to it",
            "since": "Written then or later",
            "until": "Written before",
            "before": "Ids below this",
            "limit": f"How many at most, {LIMIT} unless given",
        },
        answer="AuditEntry[]",
    ),
)

"""Tokens (storage-api.md section 3)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from vaka.errors import NotFound
from vaka.models.audit import AuditQuery
from vaka.models.catalog import Role, Token
from vaka.models.storage import StorageScope
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.fields import Fields
from vaka_server.problems import Refused
from vaka_server.requests import token_role
from vaka_server.route import Call, Response, Route, absent

EVENTS = 100
MOST_EVENTS = 10_000
YEARS = 100 * 366 * 86_400
INVALID_PERMISSIONS = "storage.tokens.invalidPermissions"
FLAGS = {
    "canReadAllFileUploads": "can_read_all_file_uploads",
    "canPurgeTrash": "can_purge_trash",
}


async def verify(call: Call) -> Response:
    """`GET /tokens/verify`."""
    return call.storage(await _document(call, call.token, call.secret))


async def tokens(call: Call) -> Response:
    """`GET /tokens`."""
    found = await call.engine.catalog.tokens(call.project.id)
    return call.storage([documents.token(each, call.base, owner=False) for each in found])


async def token(call: Call, token_id: str) -> Response:
    """`GET /tokens/{id}`."""
    found = await call.engine.catalog.token(call.project.id, token_id)
    return call.storage(await _document(call, found, owner=False))


async def create(call: Call) -> Response:
    """`POST /tokens`: what the token may is what the body says, and nothing else.

    With our own `role` it may everything that its role does, less what the body limits.
    """
    given = await call.fields()
    role = token_role(given.text("role")) if "role" in given else None
    made, secret = await call.engine.catalog.create_token(
        call.project.id,
        given.text("description") or f"Created by {call.token.description}",
        role or Role.ADMIN,
        expires=_expiry(given),
        creator=call.token,
        **await _limits(call, given, is_free=role is not None),
    )
    call.gate.tokens_changed()
    call.subject["token"] = made.id
    call.noted.update(_rights(made))
    return call.storage(await _document(call, made, secret), 201)


async def update(call: Call, token_id: str) -> Response:
    """`PUT /tokens/{id}`: the description, and what the token may; only what is given changes."""
    given = await call.fields()
    before = await call.engine.catalog.token(call.project.id, token_id)
    changes: dict[str, Any] = {}
    if "description" in given:
        changes["description"] = given.text("description")
    limits = await _changed_limits(call, given)
    if not given.flag("canManageBuckets", before.can_manage_buckets) and before.can_manage_buckets:
        limits = {"bucket_permissions": {}, "component_access": (), **limits}
    if limits and before.is_master:
        raise Refused(400, "A master token may everything; its rights cannot be changed.")
    changed = await call.engine.catalog.update_token(call.project.id, token_id, changes | limits)
    call.gate.tokens_changed()
    call.noted.update(_rights(changed))
    return call.storage(await _document(call, changed, owner=False))


async def revoke(call: Call, token_id: str) -> Response:
    """`DELETE /tokens/{id}`: at once. A master token only with our own `force`, and never itself."""
    found = await call.engine.catalog.token(call.project.id, token_id)
    if token_id == call.token.id:
        raise Refused(400, "A token cannot revoke itself.")
    if found.is_master and not call.query.flag("force"):
        raise Refused(400, "A master token is not deleted without force=1.")
    await _refuse_used(call, token_id)
    try:
        await call.engine.catalog.revoke_token(call.project.id, token_id)
    finally:
        call.gate.tokens_changed()
    return Response(b"", 204)


async def _refuse_used(call: Call, token_id: str) -> None:
    for trigger in await call.engine.triggers.list(call.project.id):
        if trigger.wanted.run_with_token_id == token_id:
            raise Refused(400, f"The token is used by trigger {trigger.id}; delete that first.")


async def refresh(call: Call, token_id: str) -> Response:
    """`POST /tokens/{id}/refresh`: another secret; the old one ends at once."""
    try:
        found, secret = await call.engine.catalog.refresh_token(call.project.id, token_id)
    finally:
        call.gate.tokens_changed()
    return call.storage(await _document(call, found, secret))


async def events(call: Call, token_id: str) -> Response:
    """`GET /tokens/{id}/events`: what the audit log has of it, as events."""
    await call.engine.catalog.token(call.project.id, token_id)
    query = AuditQuery(
        project=call.project.id,
        token_id=token_id,
        limit=call.query.whole("limit", EVENTS, least=1, most=MOST_EVENTS),
    )
    found = await call.engine.audit.entries(query)
    return call.storage([documents.audit_event(each, call.base) for each in found])


def _rights(value: Token) -> dict[str, Any]:
    """What a token may, for the audit log."""
    return {
        "description": value.description,
        "role": value.role.value,
        "isMaster": value.is_master,
        "components": None if value.component_access is None else list(value.component_access),
        "buckets": None if value.bucket_permissions is None else dict(value.bucket_permissions),
        "expires": documents.storage_moment(value.expires),
    }


async def _document(
    call: Call, value: Token, secret: str | None = None, *, owner: bool = True
) -> documents.Document:
    """A token, with all buckets that it may manage by their names."""
    document = documents.token(value, call.base, secret=secret, owner=owner)
    if owner:
        scope = StorageScope(project=value.project.id)
        tables = await call.engine.storage.tables.list_tables(scope)
        document["owner"] |= documents.totals(tables)
    if value.can_manage_buckets:
        buckets = await call.engine.storage.tables.list_buckets(call.scope)
        document["bucketPermissions"] = {each.id: "manage" for each in buckets}
    return document


def _expiry(given: Fields) -> datetime | None:
    """When a token made now ends; None is never."""
    if given.text("expiresIn", "") == "":
        return None
    seconds = given.whole("expiresIn", 1, least=1, most=YEARS)
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def _limits(call: Call, given: Fields, *, is_free: bool) -> dict[str, Any]:
    """What a new token may; `is_free` is without the limits that the body does not name."""
    limits = await _changed_limits(call, given)
    manages = is_free or given.flag("canManageBuckets")
    limits.setdefault("bucket_permissions", None if manages else {})
    limits.setdefault("component_access", None if manages else ())
    is_limited = limits["bucket_permissions"] is not None
    for name in FLAGS.values():
        limits.setdefault(name, is_free and not is_limited)
    return {**limits, "can_manage_tokens": is_free}


async def _changed_limits(call: Call, given: Fields) -> dict[str, Any]:
    """What the body says of what a token may."""
    limits: dict[str, Any] = {
        word: given.flag(name) for name, word in FLAGS.items() if name in given
    }
    if "componentAccess" in given:
        limits["component_access"] = tuple(given.texts("componentAccess"))
    if "bucketPermissions" in given:
        limits["bucket_permissions"] = await _permissions(call, given)
    if given.flag("canManageBuckets"):
        limits |= {"bucket_permissions": None, "component_access": None}
    return limits


async def _permissions(call: Call, given: Fields) -> dict[str, str]:
    permissions = given.mapping("bucketPermissions")
    for bucket, permission in permissions.items():
        if permission not in ("read", "write"):
            raise Refused(
                400,
                f"bucketPermissions: the permission for {bucket} must be read or write.",
                code=INVALID_PERMISSIONS,
            )
        try:
            await call.engine.storage.tables.bucket(call.scope, bucket)
        except NotFound as error:
            text = f"bucketPermissions: {error.message}"
            raise Refused(400, text, code=INVALID_PERMISSIONS) from error
    return permissions


PATH = "/v2/storage/tokens"
ROUTES = (
    Route(
        "GET",
        f"{PATH}/verify",
        Access.READ,
        verify,
        "The token that asks",
        answer="Token",
        branch=True,
    ),
    Route("GET", PATH, Access.MASTER, tokens, "List tokens", answer="Token[]", branch=True),
    Route(
        "POST",
        PATH,
        Access.MASTER,
        create,
        "Make a token; its secret is in this answer and nowhere else",
        body="NewToken",
        answer="Token",
        status=201,
        audit="token.created",
        branch=True,
    ),
    Route(
        "GET",
        f"{PATH}/<token_id>",
        Access.MASTER,
        token,
        "One token",
        answer="Token",
        branch=True,
    ),
    Route(
        "PUT",
        f"{PATH}/<token_id>",
        Access.MASTER,
        update,
        "Change what a token may",
        body="TokenChanges",
        answer="Token",
        audit="token.changed",
        branch=True,
    ),
    Route(
        "DELETE",
        f"{PATH}/<token_id>",
        Access.MASTER,
        revoke,
        "Revoke a token, at once",
        query={"force": "1 also revokes a master token"},
        status=204,
        audit="token.revoked",
        branch=True,
    ),
    Route(
        "POST",
        f"{PATH}/<token_id>/refresh",
        Access.MASTER,
        refresh,
        "Give a token another secret; the old one ends at once",
        answer="Token",
        audit="token.refreshed",
        branch=True,
    ),
    Route(
        "GET",
        f"{PATH}/<token_id>/events",
        Access.MASTER,
        events,
        "What the audit log has of a token",
        query={"limit": f"How many at most, {EVENTS} unless given"},
        answer="Event[]",
        branch=True,
    ),
    absent("POST", f"{PATH}/<token_id>/share", "Sharing of tokens", branch=True),
)

"""Tokens (storage-api.md section 3)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from vaka.errors import AccessDenied, NotFound
from vaka.models.catalog import Role, Token
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.body import parse_object
from vaka_server.problems import Refused
from vaka_server.requests import token_role
from vaka_server.route import Call, Response, Route

YEARS = 100 * 366 * 86_400


async def verify(call: Call) -> Response:
    """`GET /v2/storage/tokens/verify`."""
    return call.storage(documents.token(call.token, call.base, secret=call.secret))


async def tokens(call: Call) -> Response:
    """`GET /v2/storage/tokens`."""
    check_unlimited(call.token)
    found = await call.engine.catalog.tokens(call.project.id)
    return call.storage([documents.token(each, call.base, owner=False) for each in found])


async def create(call: Call) -> Response:
    """`POST /v2/storage/tokens`; our own `role` is `admin`, `run` or `read`."""
    check_unlimited(call.token)
    given = parse_object(await call.raw())
    token, secret = await call.engine.catalog.create_token(
        call.project.id,
        str(given.get("description") or f"Created by {call.token.description}"),
        token_role(given.get("role", Role.RUN)),
        expires=token_expiry(given.get("expiresIn")),
        component_access=_components(given.get("componentAccess")),
        bucket_permissions=await _permissions(call, given.get("bucketPermissions")),
    )
    call.gate.tokens_changed()
    return call.storage(documents.token(token, call.base, secret=secret), 201)


async def revoke(call: Call, token_id: str) -> Response:
    """`DELETE /v2/storage/tokens/{id}`: at once."""
    check_unlimited(call.token)
    if token_id == call.token.id:
        raise Refused(400, "A token cannot revoke itself.")
    try:
        await call.engine.catalog.revoke_token(call.project.id, token_id)
    finally:
        call.gate.tokens_changed()
    return Response(b"", 204)


def check_unlimited(token: Token) -> None:
    """`AccessDenied` when `token` is limited: it could make itself one that is not."""
    if token.component_access is not None or token.bucket_permissions is not None:
        raise AccessDenied(f"Token {token.id} is limited and cannot manage tokens.")


def token_expiry(seconds: Any) -> datetime | None:
    """When a token made now ends; None is never."""
    if seconds in (None, ""):
        return None
    text = str(seconds)
    if not (text.isascii() and text.isdigit() and 0 < int(text[:12]) <= YEARS):
        raise Refused(400, "expiresIn: must be a number of seconds above 0.")
    return datetime.now(UTC) + timedelta(seconds=int(text))


def _components(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        raise Refused(400, "componentAccess: must be a list of component ids.")
    return tuple(value)


async def _permissions(call: Call, value: Any) -> dict[str, str] | None:
    if value is None:
        return None
    code = "storage.tokens.invalidPermissions"
    if not (isinstance(value, dict) and set(map(str, value.values())) <= {"read", "write"}):
        raise Refused(400, "bucketPermissions: must be read or write for each bucket.", code=code)
    for bucket in value:
        try:
            await call.engine.storage.tables.bucket(call.scope, bucket)
        except NotFound as error:
            raise Refused(400, f"bucketPermissions: {error.message}", code=code) from error
    return dict(value)


ROUTES = (
    Route(
        "GET",
        "/v2/storage/tokens/verify",
        Access.READ,
        verify,
        "The token that asks",
        answer="Token",
    ),
    Route("GET", "/v2/storage/tokens", Access.ADMIN, tokens, "List tokens", answer="Token[]"),
    Route(
        "POST",
        "/v2/storage/tokens",
        Access.ADMIN,
        create,
        "Make a token; its secret is in this answer and nowhere else",
        body="NewToken",
        answer="Token",
        status=201,
    ),
    Route(
        "DELETE",
        "/v2/storage/tokens/<token_id>",
        Access.ADMIN,
        revoke,
        "Revoke a token, at once",
        status=204,
    ),
)

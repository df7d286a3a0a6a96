"""The tokens of a project in the catalog, within one transaction. Secrets are kept as hashes only."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vaka.errors import InvalidInput, NotFound
from vaka.models.catalog import Project, Role, Token
from vaka_local.database import tokens
from vaka_local.jsontext import from_text, to_text

_ALPHABET: Final = string.ascii_letters + string.digits
_SECRET_LETTERS: Final = 40
CHANGEABLE: Final = frozenset(
    {
        "description",
        "expires",
        "component_access",
        "bucket_permissions",
        "can_manage_tokens",
        "can_read_all_file_uploads",
        "can_purge_trash",
    }
)


def digest(secret: str) -> str:
    """What is kept of a secret. It has so much chance in it that no salt or slow hash is needed."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def find(connection: Connection, secret: str) -> Any:
    """The row of the token with this secret, or None."""
    return connection.execute(
        sa.select(tokens).where(tokens.c.secret_hash == digest(secret))
    ).first()


def every(connection: Connection, owner: Project) -> list[Token]:
    """All tokens of a project by id."""
    statement = sa.select(tokens).where(tokens.c.project_id == int(owner.id)).order_by(tokens.c.id)
    return [token(row, owner) for row in connection.execute(statement)]


def get(connection: Connection, owner: Project, token_id: str) -> Token:
    """One token; `NotFound` when the project has it not."""
    row = connection.execute(sa.select(tokens).where(*_key(owner, token_id))).first()
    if row is None:
        raise _missing(token_id)
    return token(row, owner)


def create(
    connection: Connection,
    owner: Project,
    role: Role,
    values: Mapping[str, Any],
    creator: Token | None,
    now: datetime,
) -> tuple[Token, str]:
    """A new token and its secret."""
    insert = tokens.insert().values(
        project_id=int(owner.id),
        # the secret has the id in it, which is known only now
        secret_hash=secrets.token_hex(),
        role=Role(role).value,
        created=now,
        refreshed=now,
        creator_id=None if creator is None else creator.id,
        creator_description=None if creator is None else creator.description,
        **_columns(values),
    )
    token_id = str(connection.execute(insert.returning(tokens.c.id)).scalar_one())
    return _new_secret(connection, owner, token_id)


def update(
    connection: Connection, owner: Project, token_id: str, changes: Mapping[str, Any]
) -> Token:
    """A token after the changes."""
    columns = _columns(changes)
    if columns:
        connection.execute(tokens.update().where(*_key(owner, token_id)).values(**columns))
    return get(connection, owner, token_id)


def refresh(
    connection: Connection, owner: Project, token_id: str, now: datetime
) -> tuple[Token, str]:
    """A token with a new secret; the old one is worth nothing any more."""
    connection.execute(tokens.update().where(*_key(owner, token_id)).values(refreshed=now))
    return _new_secret(connection, owner, token_id)


def revoke(connection: Connection, owner: Project, token_id: str) -> None:
    """Remove a token."""
    if not connection.execute(tokens.delete().where(*_key(owner, token_id))).rowcount:
        raise _missing(token_id)


def token(row: Any, project: Project) -> Token:
    """A row as a token."""
    access, permissions = row.component_access, row.bucket_permissions
    return Token(
        id=str(row.id),
        description=row.description,
        project=project,
        role=Role(row.role),
        created=row.created,
        expires=row.expires,
        component_access=None if access is None else tuple(from_text(access)),
        bucket_permissions=None if permissions is None else from_text(permissions),
        can_manage_tokens=row.can_manage_tokens,
        can_read_all_file_uploads=row.can_read_all_file_uploads,
        can_purge_trash=row.can_purge_trash,
        refreshed=row.refreshed,
        creator_token_id=row.creator_id,
        creator_token_description=row.creator_description,
    )


def _new_secret(connection: Connection, owner: Project, token_id: str) -> tuple[Token, str]:
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LETTERS))
    secret = f"{owner.id}-{token_id}-{letters}"
    connection.execute(
        tokens.update().where(*_key(owner, token_id)).values(secret_hash=digest(secret))
    )
    return get(connection, owner, token_id), secret


def _columns(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a token is to be, as it is kept."""
    unknown = set(values) - CHANGEABLE
    if unknown:
        raise InvalidInput(f"A token has no {', '.join(sorted(unknown))} to be changed.")
    columns = dict(values)
    if "component_access" in columns:
        access = columns["component_access"]
        columns["component_access"] = _text(None if access is None else list(access))
    if "bucket_permissions" in columns:
        permissions = columns["bucket_permissions"]
        for bucket, permission in (permissions or {}).items():
            if permission not in {"read", "write"}:
                raise InvalidInput(
                    f'"{permission}" is not a permission for bucket "{bucket}". There are: '
                    "read, write.",
                    path="bucket_permissions",
                )
        columns["bucket_permissions"] = _text(permissions)
    return columns


def _text(value: Any) -> str | None:
    return None if value is None else to_text(value, "permissions")


def _key(owner: Project, token_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    number = int(token_id) if re.fullmatch(r"[1-9][0-9]{0,17}", token_id) else -1
    return tokens.c.project_id == int(owner.id), tokens.c.id == number


def _missing(token_id: str) -> NotFound:
    return NotFound(f"Token {token_id} not found", kind="token", id=token_id)

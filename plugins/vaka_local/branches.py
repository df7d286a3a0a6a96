"""The branches of a project in the catalog, within one transaction."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vaka.errors import Conflict, InvalidInput, NotFound
from vaka.models.catalog import Branch, Token
from vaka_local.database import MAIN, branches, vault_variables


def all_branches(connection: Connection, project: int) -> list[Branch]:
    """The default branch, and then the others by id."""
    statement = (
        sa.select(branches)
        .where(branches.c.project_id == project)
        .order_by(branches.c.is_default.desc(), branches.c.id)
    )
    return [_branch(row) for row in connection.execute(statement)]


def create_main(connection: Connection, project: int, now: datetime) -> None:
    """Give a new project its default branch."""
    _insert(connection, project, MAIN, "", now, None, is_default=True)


def create(
    connection: Connection,
    project: int,
    name: str,
    description: str,
    now: datetime,
    token: Token | None,
) -> Branch:
    """A new development branch."""
    _check_name(connection, project, name)
    branch_id = _insert(connection, project, name, description, now, token, is_default=False)
    row = connection.execute(sa.select(branches).where(branches.c.id == branch_id)).one()
    return _branch(row)


def update(
    connection: Connection, project: int, branch: str, name: str | None, description: str | None
) -> Branch:
    """Change what a branch is called."""
    row = _get(connection, project, branch)
    values = {"name": name, "description": description}
    values = {key: value for key, value in values.items() if value is not None}
    if name is not None:
        _check_name(connection, project, name, row.id)
    if values:
        connection.execute(branches.update().where(branches.c.id == row.id).values(**values))
    return _branch(_get(connection, project, branch))


def delete(connection: Connection, project: int, branch: str) -> None:
    """Remove a development branch; its configurations, states and variables go with it."""
    row = _get(connection, project, branch)
    if row.is_default:
        raise InvalidInput("Cannot delete Main branch", path="branch")
    of_branch = vault_variables.c.branch == branch, vault_variables.c.project_id == project
    connection.execute(vault_variables.delete().where(*of_branch))
    connection.execute(branches.delete().where(branches.c.id == row.id))


def development(connection: Connection, project: int, branch: str) -> int | None:
    """The number of a development branch; None for the default one; `NotFound` for no branch."""
    row = _get(connection, project, branch)
    return None if row.is_default else int(row.id)


def _check_name(connection: Connection, project: int, name: str, but: int = 0) -> None:
    """Raise when a branch cannot be called so; `but` is the number of the one that may be."""
    if not name.strip():
        raise InvalidInput("A branch needs a name.", path="name")
    same = sa.select(branches.c.id).where(
        branches.c.project_id == project, branches.c.name == name, branches.c.id != but
    )
    if connection.execute(same).first() is not None:
        raise Conflict(f'There already is a branch with name "{name}"')


def _get(connection: Connection, project: int, branch: str) -> Any:
    number = int(branch) if re.fullmatch(r"[0-9]{1,18}", branch) else -1
    statement = sa.select(branches).where(branches.c.project_id == project, branches.c.id == number)
    row = connection.execute(statement).first()
    if row is None or str(row.id) != branch:
        raise NotFound(f"Branch {branch} not found", kind="branch", id=branch)
    return row


def _insert(
    connection: Connection,
    project: int,
    name: str,
    description: str,
    now: datetime,
    token: Token | None,
    *,
    is_default: bool,
) -> int:
    insert = branches.insert().values(
        project_id=project,
        name=name,
        description=description,
        is_default=is_default,
        created=now,
        creator_id=token.id if token else None,
        creator_description=token.description if token else None,
    )
    return int(connection.execute(insert.returning(branches.c.id)).scalar_one())


def _branch(row: Any) -> Branch:
    return Branch(
        id=str(row.id),
        name=row.name,
        is_default=row.is_default,
        created=row.created,
        description=row.description,
        creator_token_id=row.creator_id,
        creator_token_description=row.creator_description,
    )

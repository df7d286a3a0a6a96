"""Vault variables and granted credentials of one project: rules and SQL, on an open connection.

Nothing is kept in the clear that is secret: what is to be secret comes in as a cipher, or is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vaka.errors import Conflict, InvalidInput, NotFound
from vaka.models.catalog import VaultVariable
from vaka.models.ciphers import is_cipher, refuse_plain_secrets
from vaka_local.configurations import check_id
from vaka_local.database import oauth_credentials, vault_variables
from vaka_local.jsontext import from_text, to_text

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")


class Vault:
    """What a project keeps for its configurations' placeholders and for its components' access."""

    def __init__(self, connection: Connection, project: int) -> None:
        """Work on `connection`, whose transaction is the caller's."""
        self._connection = connection
        self._project = project

    def variables(self, branch: str | None) -> list[VaultVariable]:
        """Those that a branch sees."""
        table = vault_variables
        statement = (
            sa.select(table)
            .where(table.c.project_id == self._project, table.c.branch.in_(("", branch or "")))
            .order_by(
                table.c.branch
            )  # a branch's own come after the project's, in whose place they are
        )
        found = {row.name: _variable(row) for row in self._connection.execute(statement)}
        return [found[name] for name in sorted(found)]

    def put_variable(self, variable: VaultVariable, expected: str | None = None) -> VaultVariable:
        """Set a variable; with an expected value, only in place of that."""
        if not _NAME.fullmatch(variable.name):
            raise InvalidInput(
                f'"{variable.name}" cannot be the name of a variable: use letters, digits, "_" and '
                '"-", at most 200.',
                path="name",
            )
        if variable.is_encrypted and not is_cipher(variable.value):
            raise InvalidInput(
                f'The variable "{variable.name}" is to be encrypted, which nobody does here. '
                "Give its value encrypted.",
                path="value",
            )
        if expected is not None:
            statement = sa.select(vault_variables.c.value).where(*self._is(variable))
            found = self._connection.scalar(statement)
            if found is None or from_text(found) != expected:
                raise Conflict(f"The variable {variable.name} was changed meanwhile.")
        self._connection.execute(vault_variables.delete().where(*self._is(variable)))
        self._connection.execute(
            vault_variables.insert().values(
                project_id=self._project,
                branch=variable.branch or "",
                name=variable.name,
                value=to_text(variable.value, "value"),
                is_encrypted=variable.is_encrypted,
            )
        )
        return variable

    def delete_variable(self, name: str, branch: str | None) -> None:
        """Remove a variable."""
        variable = VaultVariable(name, "", branch=branch)
        deleted = self._connection.execute(vault_variables.delete().where(*self._is(variable)))
        if not deleted.rowcount:
            raise NotFound(f"Variable {name} not found", kind="variable", id=name)

    def credentials(self, component_id: str, credentials_id: str) -> Mapping[str, Any]:
        """Credentials as they were put."""
        statement = sa.select(oauth_credentials.c.document).where(
            *self._are(component_id, credentials_id)
        )
        document = self._connection.scalar(statement)
        if document is None:
            raise _no_credentials(component_id, credentials_id)
        found: Mapping[str, Any] = from_text(document)
        return found

    def credentials_ids(self) -> list[tuple[str, str]]:
        """Component and id of all credentials."""
        table = oauth_credentials
        statement = (
            sa.select(table.c.component_id, table.c.id)
            .where(table.c.project_id == self._project)
            .order_by(table.c.component_id, table.c.id)
        )
        return [(row.component_id, row.id) for row in self._connection.execute(statement)]

    def put_credentials(
        self,
        component_id: str,
        credentials_id: str,
        credentials: Mapping[str, Any],
        now: datetime,
        expected: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep credentials; with expected ones, only in place of those."""
        check_id(component_id, "component_id")
        check_id(credentials_id, "credentials_id")
        refuse_plain_secrets(credentials, f'the credentials "{credentials_id}" of {component_id}')
        document = to_text(credentials, "credentials")
        if expected is not None:
            statement = sa.select(oauth_credentials.c.document).where(
                *self._are(component_id, credentials_id)
            )
            if self._connection.scalar(statement) != to_text(expected, "credentials"):
                raise Conflict(f"The credentials {credentials_id} were changed meanwhile.")
        self._connection.execute(
            oauth_credentials.delete().where(*self._are(component_id, credentials_id))
        )
        self._connection.execute(
            oauth_credentials.insert().values(
                project_id=self._project,
                component_id=component_id,
                id=credentials_id,
                document=document,
                created=now,
            )
        )

    def delete_credentials(self, component_id: str, credentials_id: str) -> None:
        """Forget credentials."""
        deleted = self._connection.execute(
            oauth_credentials.delete().where(*self._are(component_id, credentials_id))
        )
        if not deleted.rowcount:
            raise _no_credentials(component_id, credentials_id)

    def _is(self, variable: VaultVariable) -> tuple[sa.ColumnElement[bool], ...]:
        table = vault_variables.c
        return (
            table.project_id == self._project,
            table.branch == (variable.branch or ""),
            table.name == variable.name,
        )

    def _are(self, component_id: str, credentials_id: str) -> tuple[sa.ColumnElement[bool], ...]:
        table = oauth_credentials.c
        return (
            table.project_id == self._project,
            table.component_id == component_id,
            table.id == credentials_id,
        )


def _variable(row: Any) -> VaultVariable:
    return VaultVariable(row.name, from_text(row.value), row.is_encrypted, row.branch or None)


def _no_credentials(component_id: str, credentials_id: str) -> NotFound:
    return NotFound(f"No data found for api {component_id}", kind="credentials", id=credentials_id)

"""The catalog of the embedded Storage: projects, tokens, components, and configurations.

JSON values are kept as text and given back as they were: order of keys, `{}` and `[]`, large numbers.
Every change is one transaction, and writers stand in line, so versions count up without gaps.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vaka.errors import AuthenticationFailed, InvalidInput, NotFound
from vaka.hooks import Catalog
from vaka.models.catalog import (
    Branch,
    Component,
    Configuration,
    ConfigurationMetadata,
    ConfigurationRow,
    ConfigurationVersion,
    Project,
    Role,
    State,
    Token,
    VaultVariable,
    Workspace,
)
from vaka.models.storage import MetadataEntry
from vaka_local import branches, remarks, states, tokens, workspaces
from vaka_local.configurations import Author, Configurations, Content, check_id, no_component
from vaka_local.database import Database, components, projects
from vaka_local.jsontext import from_text, to_text
from vaka_local.vault import Vault

T = TypeVar("T")

_TOKENS_CACHED: Final = 1_000


def utc_now() -> datetime:
    """The time of the machine."""
    return datetime.now(UTC)


class LocalCatalog(Catalog):
    """A catalog in `catalog.db` of a folder."""

    def __init__(self, home: Path, *, clock: Callable[[], datetime] = utc_now) -> None:
        """Keep everything in `home`; `clock` gives the time in UTC."""
        self._database = Database(home)
        self._clock = clock
        self._changes: sqlite3.Connection | None = None
        self._known_tokens: dict[str, Token] = {}
        self._known_at: int | None = None

    async def open(self) -> None:
        await self._database.open()
        self._changes = sqlite3.connect(self._database.path, check_same_thread=False)

    async def aclose(self) -> None:
        self._known_tokens.clear()
        if self._changes is not None:
            self._changes.close()
            self._changes = None
        await self._database.aclose()

    # -- projects --------------------------------------------------------------------------------

    async def projects(self) -> list[Project]:
        statement = sa.select(projects).order_by(projects.c.id)
        return await self._database.read(
            lambda connection: [_project(row) for row in connection.execute(statement)]
        )

    async def project(self, project: str) -> Project:
        return await self._database.read(lambda connection: _get_project(connection, project))

    async def create_project(
        self, name: str, *, features: Sequence[str] = (), limits: Mapping[str, Any] | None = None
    ) -> Project:
        if not name.strip():
            raise InvalidInput("A project needs a name.", path="name")
        now = self._clock()
        values = {
            "name": name,
            "created": now,
            "features": to_text(list(features), "features"),
            "limits": to_text(limits or {}, "limits"),
        }

        def create(connection: Connection) -> Project:
            insert = projects.insert().values(**values).returning(projects.c.id)
            number = connection.execute(insert).scalar_one()
            branches.create_main(connection, number, now)
            return _get_project(connection, str(number))

        return await self._database.write(create)

    async def update_project(
        self,
        project: str,
        *,
        name: str | None = None,
        features: Sequence[str] | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> Project:
        if name is not None and not name.strip():
            raise InvalidInput("A project needs a name.", path="name")
        values: dict[str, Any] = {}
        if name is not None:
            values["name"] = name
        if features is not None:
            values["features"] = to_text(list(dict.fromkeys(features)), "features")
        if limits is not None:
            values["limits"] = to_text(limits, "limits")

        def update(connection: Connection) -> Project:
            number = _key(connection, project)
            if values:
                connection.execute(
                    projects.update().where(projects.c.id == number).values(**values)
                )
            return _get_project(connection, project)

        try:
            return await self._database.write(update)
        finally:
            self._known_tokens.clear()

    # -- branches --------------------------------------------------------------------------------

    async def branches(self, project: str) -> list[Branch]:
        return await self._database.read(
            lambda connection: branches.all_branches(connection, _key(connection, project))
        )

    async def create_branch(
        self, project: str, name: str, *, description: str = "", token: Token | None = None
    ) -> Branch:
        now = self._clock()
        return await self._database.write(
            lambda connection: branches.create(
                connection, _key(connection, project), name, description, now, token
            )
        )

    async def update_branch(
        self,
        project: str,
        branch: str,
        *,
        name: str | None = None,
        description: str | None = None,
    ) -> Branch:
        return await self._database.write(
            lambda connection: branches.update(
                connection, _key(connection, project), branch, name, description
            )
        )

    async def delete_branch(self, project: str, branch: str) -> None:
        await self._database.write(
            lambda connection: branches.delete(connection, _key(connection, project), branch)
        )

    # -- tokens ----------------------------------------------------------------------------------

    async def verify_token(self, secret: str) -> Token:
        digest = tokens.digest(secret)
        moment = self._version_of_everything()
        if moment is None or moment != self._known_at:
            self._known_tokens.clear()
            self._known_at = moment
        token = self._known_tokens.get(digest)
        if token is None:
            token = await self._database.read(lambda connection: _find_token(connection, secret))
            # what was read is not older than `moment`; if it is newer, the next call starts anew
            if token is not None and moment == self._known_at and moment is not None:
                if len(self._known_tokens) >= _TOKENS_CACHED:
                    self._known_tokens.clear()
                self._known_tokens[digest] = token
        if token is None or (token.expires is not None and token.expires <= self._clock()):
            raise AuthenticationFailed("Invalid access token")
        return token

    def _version_of_everything(self) -> int | None:
        """A number that changes with every change to the catalog, by whatever process.

        It is in shared memory: asking costs some microseconds and waits for nobody.
        """
        if self._changes is None:
            return None
        try:
            return int(self._changes.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:
            return None

    async def create_token(
        self,
        project: str,
        description: str,
        role: Role,
        *,
        expires: datetime | None = None,
        component_access: Sequence[str] | None = None,
        bucket_permissions: Mapping[str, str] | None = None,
        can_manage_tokens: bool = True,
        can_read_all_file_uploads: bool = True,
        can_purge_trash: bool = True,
        creator: Token | None = None,
    ) -> tuple[Token, str]:
        values = {
            "description": description,
            "expires": expires,
            "component_access": component_access,
            "bucket_permissions": bucket_permissions,
            "can_manage_tokens": can_manage_tokens,
            "can_read_all_file_uploads": can_read_all_file_uploads,
            "can_purge_trash": can_purge_trash,
        }
        now = self._clock()
        return await self._database.write(
            lambda connection: tokens.create(
                connection, _get_project(connection, project), role, values, creator, now
            )
        )

    async def tokens(self, project: str) -> list[Token]:
        return await self._database.read(
            lambda connection: tokens.every(connection, _get_project(connection, project))
        )

    async def token(self, project: str, token_id: str) -> Token:
        return await self._database.read(
            lambda connection: tokens.get(connection, _get_project(connection, project), token_id)
        )

    async def update_token(self, project: str, token_id: str, changes: Mapping[str, Any]) -> Token:
        return await self._change_token(
            lambda connection: tokens.update(
                connection, _get_project(connection, project), token_id, changes
            )
        )

    async def refresh_token(self, project: str, token_id: str) -> tuple[Token, str]:
        now = self._clock()
        return await self._change_token(
            lambda connection: tokens.refresh(
                connection, _get_project(connection, project), token_id, now
            )
        )

    async def revoke_token(self, project: str, token_id: str) -> None:
        await self._change_token(
            lambda connection: tokens.revoke(
                connection, _get_project(connection, project), token_id
            )
        )

    async def _change_token(self, work: Callable[[Connection], T]) -> T:
        try:
            return await self._database.write(work)
        finally:
            self._known_tokens.clear()

    # -- components ------------------------------------------------------------------------------

    async def put_component(self, document: Mapping[str, Any]) -> Component:
        component = _component(document)
        text = to_text(document, "component")

        def put(connection: Connection) -> Component:
            connection.execute(components.delete().where(components.c.id == component.id))
            connection.execute(components.insert().values(id=component.id, document=text))
            return component

        return await self._database.write(put)

    async def component(self, component_id: str) -> Component:
        statement = sa.select(components.c.document).where(components.c.id == component_id)
        text = await self._database.read(lambda connection: connection.scalar(statement))
        if text is None:
            raise no_component(component_id)
        return _component(from_text(text))

    async def components(self) -> list[Component]:
        statement = sa.select(components.c.document).order_by(components.c.id)
        texts = await self._database.read(lambda connection: connection.scalars(statement).all())
        return [_component(from_text(text)) for text in texts]

    async def delete_component(self, component_id: str) -> None:
        statement = components.delete().where(components.c.id == component_id)
        deleted = await self._database.write(
            lambda connection: connection.execute(statement).rowcount
        )
        if not deleted:
            raise no_component(component_id)

    # -- configurations --------------------------------------------------------------------------

    async def configuration(
        self,
        project: str,
        component_id: str,
        config_id: str,
        *,
        version: int | None = None,
        branch: str | None = None,
    ) -> Configuration:
        return await self._read(
            project, branch, lambda here: here.get(component_id, config_id, version)
        )

    async def configurations(
        self, project: str, component_id: str | None = None, *, branch: str | None = None
    ) -> list[Configuration]:
        return await self._read(project, branch, lambda here: here.find(component_id))

    async def deleted_configurations(
        self, project: str, component_id: str | None = None, *, branch: str | None = None
    ) -> list[Configuration]:
        return await self._read(
            project, branch, lambda here: here.find(component_id, is_deleted=True)
        )

    async def create_configuration(
        self,
        project: str,
        component_id: str,
        name: str,
        *,
        config_id: str | None = None,
        description: str = "",
        configuration: Any = None,
        is_disabled: bool = False,
        state: Any = None,
        change_description: str = "",
        token: Token | None = None,
        branch: str | None = None,
    ) -> Configuration:
        content = Content.new(name, description, configuration, is_disabled=is_disabled)
        return await self._write(
            project,
            branch,
            token,
            lambda here: here.create(
                component_id, config_id, content, change_description, state=state
            ),
        )

    async def update_configuration(
        self,
        project: str,
        component_id: str,
        config_id: str,
        changes: Mapping[str, Any],
        *,
        change_description: str = "",
        expected_version: int | None = None,
        token: Token | None = None,
        branch: str | None = None,
    ) -> Configuration:
        return await self._write(
            project,
            branch,
            token,
            lambda here: here.update(
                component_id, config_id, changes, change_description, expected_version
            ),
        )

    async def delete_configuration(
        self,
        project: str,
        component_id: str,
        config_id: str,
        *,
        token: Token | None = None,
        branch: str | None = None,
    ) -> None:
        await self._write(project, branch, token, lambda here: here.delete(component_id, config_id))

    async def restore_configuration(
        self,
        project: str,
        component_id: str,
        config_id: str,
        *,
        token: Token | None = None,
        branch: str | None = None,
    ) -> Configuration:
        return await self._write(
            project, branch, token, lambda here: here.restore(component_id, config_id)
        )

    async def configuration_versions(
        self,
        project: str,
        component_id: str,
        config_id: str,
        *,
        limit: int | None = None,
        offset: int = 0,
        branch: str | None = None,
    ) -> list[ConfigurationVersion]:
        return await self._read(
            project, branch, lambda here: here.versions(component_id, config_id, limit, offset)
        )

    async def rollback_configuration(
        self,
        project: str,
        component_id: str,
        config_id: str,
        version: int,
        *,
        change_description: str = "",
        token: Token | None = None,
        branch: str | None = None,
    ) -> Configuration:
        return await self._write(
            project,
            branch,
            token,
            lambda here: here.rollback(component_id, config_id, version, change_description),
        )

    async def copy_configuration(
        self,
        project: str,
        component_id: str,
        config_id: str,
        version: int,
        *,
        name: str | None = None,
        description: str | None = None,
        change_description: str = "",
        token: Token | None = None,
        branch: str | None = None,
    ) -> Configuration:
        return await self._write(
            project,
            branch,
            token,
            lambda here: here.copy(
                component_id, config_id, version, name, description, change_description
            ),
        )

    async def create_row(
        self,
        project: str,
        component_id: str,
        config_id: str,
        *,
        row_id: str | None = None,
        name: str = "",
        description: str = "",
        configuration: Any = None,
        is_disabled: bool = False,
        state: Any = None,
        change_description: str = "",
        token: Token | None = None,
        branch: str | None = None,
    ) -> ConfigurationRow:
        content = Content.new(name, description, configuration, is_disabled=is_disabled)
        return await self._write(
            project,
            branch,
            token,
            lambda here: here.create_row(
                component_id, config_id, row_id, content, change_description, state
            ),
        )

    async def update_row(
        self,
        project: str,
        component_id: str,
        config_id: str,
        row_id: str,
        changes: Mapping[str, Any],
        *,
        change_description: str = "",
        expected_version: int | None = None,
        token: Token | None = None,
        branch: str | None = None,
    ) -> ConfigurationRow:
        return await self._write(
            project,
            branch,
            token,
            lambda here: here.update_row(
                component_id, config_id, row_id, changes, change_description, expected_version
            ),
        )

    async def delete_row(
        self,
        project: str,
        component_id: str,
        config_id: str,
        row_id: str,
        *,
        change_description: str = "",
        token: Token | None = None,
        branch: str | None = None,
    ) -> None:
        await self._write(
            project,
            branch,
            token,
            lambda here: here.delete_row(component_id, config_id, row_id, change_description),
        )

    async def row_versions(
        self,
        project: str,
        component_id: str,
        config_id: str,
        row_id: str,
        *,
        limit: int | None = None,
        offset: int = 0,
        branch: str | None = None,
    ) -> list[ConfigurationVersion]:
        return await self._read(
            project,
            branch,
            lambda here: here.row_versions(component_id, config_id, row_id, limit, offset),
        )

    async def row_version(
        self,
        project: str,
        component_id: str,
        config_id: str,
        row_id: str,
        version: int,
        *,
        branch: str | None = None,
    ) -> ConfigurationVersion:
        return await self._read(
            project,
            branch,
            lambda here: here.row_version(component_id, config_id, row_id, version),
        )

    async def rollback_row(
        self,
        project: str,
        component_id: str,
        config_id: str,
        row_id: str,
        version: int,
        *,
        change_description: str = "",
        token: Token | None = None,
        branch: str | None = None,
    ) -> ConfigurationRow:
        return await self._write(
            project,
            branch,
            token,
            lambda here: here.rollback_row(
                component_id, config_id, row_id, version, change_description
            ),
        )

    async def copy_row(
        self,
        project: str,
        component_id: str,
        config_id: str,
        row_id: str,
        version: int,
        *,
        target: str | None = None,
        change_description: str = "",
        token: Token | None = None,
        branch: str | None = None,
    ) -> ConfigurationRow:
        return await self._write(
            project,
            branch,
            token,
            lambda here: here.copy_row(
                component_id, config_id, row_id, version, target, change_description
            ),
        )

    async def state(
        self,
        project: str,
        component_id: str,
        config_id: str,
        row_id: str | None = None,
        *,
        branch: str | None = None,
    ) -> State:
        return await self._read(
            project, branch, lambda here: states.state(here, component_id, config_id, row_id)
        )

    async def put_state(
        self,
        project: str,
        component_id: str,
        config_id: str,
        row_id: str | None,
        value: Any,
        *,
        expected_version: int | None = None,
        key: str | None = None,
        branch: str | None = None,
    ) -> State:
        return await self._write(
            project,
            branch,
            None,
            lambda here: states.put(
                here, component_id, config_id, row_id, value, expected_version, key
            ),
        )

    async def states(
        self,
        project: str,
        configurations: Sequence[Configuration],
        *,
        branch: str | None = None,
    ) -> dict[tuple[str, str, str | None], State]:
        return await self._read(project, branch, lambda here: states.states(here, configurations))

    # -- metadata and workspaces -----------------------------------------------------------------

    async def metadata(
        self,
        project: str,
        *,
        component_id: str | None = None,
        config_id: str | None = None,
        branch: str | None = None,
    ) -> list[MetadataEntry]:
        return await self._read(
            project, branch, lambda here: remarks.entries(here, component_id, config_id)
        )

    async def put_metadata(
        self,
        project: str,
        values: Mapping[str, str],
        *,
        component_id: str | None = None,
        config_id: str | None = None,
        branch: str | None = None,
    ) -> list[MetadataEntry]:
        return await self._write(
            project,
            branch,
            None,
            lambda here: remarks.put(here, component_id, config_id, values),
        )

    async def delete_metadata(
        self,
        project: str,
        entry_id: str,
        *,
        component_id: str | None = None,
        config_id: str | None = None,
        branch: str | None = None,
    ) -> None:
        await self._write(
            project,
            branch,
            None,
            lambda here: remarks.delete(here, component_id, config_id, entry_id),
        )

    async def find_metadata(
        self,
        project: str,
        *,
        component_id: str | None = None,
        config_id: str | None = None,
        keys: Collection[str] | None = None,
        branch: str | None = None,
    ) -> list[ConfigurationMetadata]:
        return await self._read(
            project, branch, lambda here: remarks.find(here, component_id, config_id, keys)
        )

    async def workspaces(self, project: str, *, branch: str | None = None) -> list[Workspace]:
        return await self._read(project, branch, workspaces.all_workspaces)

    async def create_workspace(
        self,
        project: str,
        component_id: str,
        config_id: str,
        *,
        is_read_only: bool = True,
        key: str | None = None,
        token: Token | None = None,
        branch: str | None = None,
    ) -> Workspace:
        return await self._write(
            project,
            branch,
            token,
            lambda here: workspaces.create(here, component_id, config_id, is_read_only, key),
        )

    async def delete_workspace(
        self, project: str, workspace_id: int, *, branch: str | None = None
    ) -> None:
        await self._write(project, branch, None, lambda here: workspaces.delete(here, workspace_id))

    # -- the vault and credentials ---------------------------------------------------------------

    async def vault_variables(
        self, project: str, *, branch: str | None = None
    ) -> list[VaultVariable]:
        return await self._database.read(
            lambda connection: _vault(connection, project).variables(branch)
        )

    async def put_vault_variable(
        self,
        project: str,
        name: str,
        value: str,
        *,
        is_encrypted: bool = False,
        branch: str | None = None,
        expected_value: str | None = None,
    ) -> VaultVariable:
        variable = VaultVariable(name, value, is_encrypted, branch or None)
        return await self._database.write(
            lambda connection: _vault(connection, project).put_variable(variable, expected_value)
        )

    async def delete_vault_variable(
        self, project: str, name: str, *, branch: str | None = None
    ) -> None:
        await self._database.write(
            lambda connection: _vault(connection, project).delete_variable(name, branch)
        )

    async def oauth_credentials(
        self, project: str, component_id: str, credentials_id: str
    ) -> Mapping[str, Any]:
        return await self._database.read(
            lambda connection: _vault(connection, project).credentials(component_id, credentials_id)
        )

    async def put_oauth_credentials(
        self,
        project: str,
        component_id: str,
        credentials_id: str,
        credentials: Mapping[str, Any],
        *,
        expected: Mapping[str, Any] | None = None,
    ) -> None:
        await self._database.write(
            lambda connection: _vault(connection, project).put_credentials(
                component_id, credentials_id, credentials, self._clock(), expected
            )
        )

    async def oauth_credentials_ids(self, project: str) -> list[tuple[str, str]]:
        return await self._database.read(
            lambda connection: _vault(connection, project).credentials_ids()
        )

    async def delete_oauth_credentials(
        self, project: str, component_id: str, credentials_id: str
    ) -> None:
        await self._database.write(
            lambda connection: _vault(connection, project).delete_credentials(
                component_id, credentials_id
            )
        )

    async def _read(
        self, project: str, branch: str | None, work: Callable[[Configurations], T]
    ) -> T:
        author = Author(self._clock(), None)
        return await self._database.read(
            lambda connection: work(_configurations(connection, project, branch, author))
        )

    async def _write(
        self,
        project: str,
        branch: str | None,
        token: Token | None,
        work: Callable[[Configurations], T],
    ) -> T:
        def with_time(connection: Connection) -> T:
            author = Author(self._clock(), token)  # once it is our turn: versions are in its order
            return work(_configurations(connection, project, branch, author))

        return await self._database.write(with_time)


def _configurations(
    connection: Connection, project: str, branch: str | None, author: Author
) -> Configurations:
    number = _key(connection, project)
    development = None
    if branch is not None:
        development = branches.development(connection, number, branch)
    return Configurations(connection, number, author, development)


def _key(connection: Connection, project: str) -> int:
    """The number of a project that is there."""
    return int(_get_project(connection, project).id)


def _vault(connection: Connection, project: str) -> Vault:
    return Vault(connection, int(_get_project(connection, project).id))


def _number(text: str) -> int:
    """An id as a number, or one that nothing has."""
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,17}", text) else -1


_PROJECT = sa.select(projects).where(projects.c.id == sa.bindparam("number"))


def _get_project(connection: Connection, project: str) -> Project:
    row = connection.execute(_PROJECT, {"number": _number(project)}).first()
    if row is None:
        raise NotFound(f"Project {project} not found", kind="project", id=project)
    return _project(row)


def _project(row: Any) -> Project:
    return Project(
        id=str(row.id),
        name=row.name,
        created=row.created,
        features=tuple(from_text(row.features)),
        limits=from_text(row.limits),
    )


def _find_token(connection: Connection, secret: str) -> Token | None:
    row = tokens.find(connection, secret)
    if row is None:
        return None
    return tokens.token(row, _get_project(connection, str(row.project_id)))


def _component(document: Mapping[str, Any]) -> Component:
    """A registered document as a component.

    Raises:
        InvalidInput: a member is missing or of the wrong type.
    """
    values: dict[str, Any] = {}
    for name, kind, default in (
        ("id", str, None),
        ("type", str, None),
        ("name", str, document.get("id")),
        ("description", str, ""),
        ("data", Mapping, {}),
        ("features", Sequence, ()),
    ):
        value = document.get(name)
        value = default if value is None else value
        if not isinstance(value, kind) or (kind is Sequence and isinstance(value, str)):
            raise InvalidInput(
                f'A component needs "{name}", of type {kind.__name__.lower()}.', path=name
            )
        values[name] = value
    check_id(values["id"], "id")
    features = tuple(values.pop("features"))
    if not all(isinstance(feature, str) for feature in features):
        raise InvalidInput("The features of a component must be strings.", path="features")
    known = {*values, "features"}
    extra = {name: value for name, value in document.items() if name not in known}
    return Component(**values, features=features, extra=extra)

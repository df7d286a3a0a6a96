"""The catalog: projects, tokens, components, configurations with rows and versions, and state.

One SQLite file, through SQLAlchemy Core. A version of a configuration is one row that holds the whole of
it, rows included, so that reading, comparing and going back are each one look-up. What was written is
durable when a method returns.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import string
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
import trio
import trio.to_thread
from sqlalchemy import event

from vaka.errors import ApplicationError, AuthenticationFailed, Conflict, InvalidInput, NotFound
from vaka.hooks import Catalog
from vaka.models.catalog import (
    Component,
    Configuration,
    ConfigurationRow,
    ConfigurationVersion,
    Project,
    Role,
    State,
    Token,
)

T = TypeVar("T")

SCHEMA_VERSION = 1
REMEMBER = 1.0
"""Seconds that a token, component or project may be told from memory. What this process changes it
forgets at once; this bounds how long another process's change may go unseen."""
READERS = 8
_SECRET_LETTERS = string.ascii_letters + string.digits
_SECRET_LENGTH = 40
_COMPONENT_FIELDS = frozenset({"id", "name", "type", "data", "features", "description"})
_CHANGES = frozenset({"name", "description", "configuration", "is_disabled", "rows_sort_order"})
_ROW_CHANGES = frozenset({"name", "description", "configuration", "is_disabled"})

_meta = sa.MetaData()
_schema = sa.Table("vaka_schema", _meta, sa.Column("version", sa.Integer, nullable=False))
_ids = sa.Table(
    "ids", _meta, sa.Column("id", sa.Integer, primary_key=True), sqlite_autoincrement=True
)
_projects = sa.Table(
    "projects",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("features", sa.Text, nullable=False),
    sa.Column("limits", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)
_tokens = sa.Table(
    "tokens",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("project", sa.Integer, sa.ForeignKey("projects.id"), nullable=False),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("expires", sa.Text),
    sa.Column("component_access", sa.Text, nullable=False),
    sa.Column("bucket_permissions", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)
_components = sa.Table(
    "components",
    _meta,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
)
_configurations = sa.Table(
    "configurations",
    _meta,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("component", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("is_deleted", sa.Boolean, nullable=False),
)
_versions = sa.Table(
    "versions",
    _meta,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("component", sa.Text, primary_key=True),
    sa.Column("configuration", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("change_description", sa.Text, nullable=False),
    sa.Column("token_id", sa.Text),
    sa.Column("token_description", sa.Text),
    sa.Column("content", sa.Text, nullable=False),
)
_states = sa.Table(
    "states",
    _meta,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("component", sa.Text, primary_key=True),
    sa.Column("configuration", sa.Text, primary_key=True),
    sa.Column("row", sa.Text, primary_key=True),  # empty for the configuration's own
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
)
_state_keys = sa.Table(
    "state_keys",
    _meta,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
)


class LocalCatalog(Catalog):
    """The catalog in `home/catalog.db`. `clock` tells the time, aware."""

    def __init__(
        self, home: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._path = home / "catalog.db"
        self._clock = clock
        self._engine: sa.Engine | None = None
        self._writing = trio.Lock()
        self._readers = trio.CapacityLimiter(READERS)
        self._remembered: dict[tuple[str, str], tuple[float, Any]] = {}

    async def open(self) -> None:
        """Open the file, or make it with a first project."""
        await trio.to_thread.run_sync(self._open)

    async def aclose(self) -> None:
        """Close all connections."""
        if self._engine is not None:
            engine, self._engine = self._engine, None
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(engine.dispose)

    # -- projects --------------------------------------------------------------------------------

    async def projects(self) -> list[Project]:
        def read(db: sa.Connection) -> list[Project]:
            return [_project(row) for row in db.execute(sa.select(_projects))]

        return await self._read(read)

    async def project(self, project: str) -> Project:
        return await self._recall("project", project, lambda db: _find_project(db, project))

    async def create_project(
        self, name: str, *, features: Sequence[str] = (), limits: Mapping[str, Any] | None = None
    ) -> Project:
        def write(db: sa.Connection) -> Project:
            return self._insert_project(db, name, features, limits or {})

        return await self._write(write)

    # -- tokens ----------------------------------------------------------------------------------

    async def verify_token(self, secret: str) -> Token:
        hashed = _hash(secret)

        def read(db: sa.Connection) -> Token:
            row = db.execute(sa.select(_tokens).where(_tokens.c.hash == hashed)).first()
            if row is None:
                raise AuthenticationFailed("Invalid access token")
            return _token(row, _find_project(db, str(row.project)))

        token = await self._recall("token", hashed, read)
        if token.expires is not None and token.expires <= self._clock():
            raise AuthenticationFailed("Invalid access token")
        return token

    async def create_token(
        self,
        project: str,
        description: str,
        role: Role,
        *,
        expires: datetime | None = None,
        component_access: Sequence[str] | None = None,
        bucket_permissions: Mapping[str, str] | None = None,
    ) -> tuple[Token, str]:
        random = "".join(secrets.choice(_SECRET_LETTERS) for _ in range(_SECRET_LENGTH))

        def write(db: sa.Connection) -> tuple[Token, str]:
            owner = _find_project(db, project)
            values = {
                "project": int(owner.id),
                "hash": secrets.token_hex(),  # until the id, which is part of the secret, is known
                "description": description,
                "role": role.value,
                "created": self._now(),
                "expires": None if expires is None else expires.isoformat(),
                "component_access": _dumps(
                    None if component_access is None else list(component_access)
                ),
                "bucket_permissions": _dumps(
                    None if bucket_permissions is None else dict(bucket_permissions)
                ),
            }
            token_id = _inserted(db.execute(sa.insert(_tokens).values(values)))
            secret = f"{owner.id}-{token_id}-{random}"
            db.execute(
                sa.update(_tokens).where(_tokens.c.id == token_id).values(hash=_hash(secret))
            )
            row = db.execute(sa.select(_tokens).where(_tokens.c.id == token_id)).one()
            return _token(row, owner), secret

        return await self._write(write)

    async def tokens(self, project: str) -> list[Token]:
        def read(db: sa.Connection) -> list[Token]:
            owner = _find_project(db, project)
            chosen = sa.select(_tokens).where(_tokens.c.project == int(owner.id))
            return [_token(row, owner) for row in db.execute(chosen.order_by(_tokens.c.id))]

        return await self._read(read)

    async def revoke_token(self, project: str, token_id: str) -> None:
        def write(db: sa.Connection) -> None:
            owner = _find_project(db, project)
            gone = db.execute(
                sa.delete(_tokens).where(
                    _tokens.c.project == int(owner.id),
                    sa.cast(_tokens.c.id, sa.Text) == token_id,
                )
            )
            if not gone.rowcount:
                raise NotFound(f"Token {token_id} not found", kind="token", id=token_id)

        await self._write(write)

    # -- components ------------------------------------------------------------------------------

    async def put_component(self, document: Mapping[str, Any]) -> Component:
        component = _component(dict(document))

        def write(db: sa.Connection) -> Component:
            db.execute(sa.delete(_components).where(_components.c.id == component.id))
            db.execute(
                sa.insert(_components).values(id=component.id, document=_dumps(dict(document)))
            )
            return component

        return await self._write(write)

    async def component(self, component_id: str) -> Component:
        def read(db: sa.Connection) -> Component:
            text = db.scalar(
                sa.select(_components.c.document).where(_components.c.id == component_id)
            )
            if text is None:
                raise _no_component(component_id)
            return _component(json.loads(text))

        return await self._recall("component", component_id, read)

    async def components(self) -> list[Component]:
        def read(db: sa.Connection) -> list[Component]:
            chosen = sa.select(_components.c.document).order_by(_components.c.id)
            return [_component(json.loads(text)) for text in db.scalars(chosen)]

        return await self._read(read)

    async def delete_component(self, component_id: str) -> None:
        def write(db: sa.Connection) -> None:
            gone = db.execute(sa.delete(_components).where(_components.c.id == component_id))
            if not gone.rowcount:
                raise _no_component(component_id)

        await self._write(write)

    # -- configurations --------------------------------------------------------------------------

    async def configuration(
        self, project: str, component_id: str, config_id: str, *, version: int | None = None
    ) -> Configuration:
        key = (project, component_id, config_id)
        return await self._read(lambda db: _read_configuration(db, key, version))

    async def configurations(
        self, project: str, component_id: str | None = None
    ) -> list[Configuration]:
        def read(db: sa.Connection) -> list[Configuration]:
            chosen = sa.select(_configurations).where(
                _configurations.c.project == project, ~_configurations.c.is_deleted
            )
            if component_id is not None:
                chosen = chosen.where(_configurations.c.component == component_id)
            rows = db.execute(
                chosen.order_by(_configurations.c.component, _configurations.c.created)
            ).all()
            return [_read_configuration(db, (row.project, row.component, row.id)) for row in rows]

        return await self._read(read)

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
        change_description: str = "",
        token: Token | None = None,
    ) -> Configuration:
        if not name:
            raise InvalidInput("A configuration needs a name: give 'name'.", path="name")
        content = {
            "name": name,
            "description": description,
            "configuration": {} if configuration is None else configuration,
            "is_disabled": is_disabled,
            "rows": [],
        }

        def write(db: sa.Connection) -> Configuration:
            _find_project(db, project)
            _require_component(db, component_id)
            key = (project, component_id, config_id or self._new_id(db))
            row = db.execute(sa.select(_configurations).where(*_at(_configurations, key))).first()
            if row is not None and not row.is_deleted:
                raise Conflict(
                    f"Configuration {key[2]} already exists; choose another id or change that one."
                )
            version = 1 if row is None else row.version + 1
            self._insert_version(
                db, key, version, content, change_description or "Configuration created", token
            )
            if row is None:
                db.execute(
                    sa.insert(_configurations).values(
                        project=key[0],
                        component=key[1],
                        id=key[2],
                        version=version,
                        created=self._now(),
                        is_deleted=False,
                    )
                )
            else:
                _set_current(db, key, version, is_deleted=False)
            return _read_configuration(db, key)

        return await self._write(write)

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
    ) -> Configuration:
        _refuse_unknown(changes, _CHANGES)

        def change(content: dict[str, Any], version: int) -> str:
            if expected_version is not None and version != expected_version:
                raise Conflict(
                    f"Configuration {config_id} is at version {version}, not {expected_version}: "
                    "somebody has changed it. Read it again and repeat the change."
                )
            wanted = dict(changes)
            order = wanted.pop("rows_sort_order", None)
            if order is not None:
                content["rows"] = _sorted_rows(content["rows"], order)
            content |= wanted
            return change_description or "Configuration updated"

        return await self._change((project, component_id, config_id), change, token)

    async def delete_configuration(
        self, project: str, component_id: str, config_id: str, *, token: Token | None = None
    ) -> None:
        key = (project, component_id, config_id)

        def write(db: sa.Connection) -> None:
            row = db.execute(sa.select(_configurations).where(*_at(_configurations, key))).first()
            if row is None:
                raise _no_configuration(config_id)
            if not row.is_deleted:
                content = _content(db, key, row.version)
                self._insert_version(
                    db, key, row.version + 1, content, "Configuration deleted", token
                )
                _set_current(db, key, row.version + 1, is_deleted=True)
                return
            db.execute(sa.delete(_configurations).where(*_at(_configurations, key)))
            for table in (_versions, _states):
                db.execute(sa.delete(table).where(*_under(table, key)))

        await self._write(write)

    async def configuration_versions(
        self, project: str, component_id: str, config_id: str
    ) -> list[ConfigurationVersion]:
        key = (project, component_id, config_id)

        def read(db: sa.Connection) -> list[ConfigurationVersion]:
            _current(db, key)
            chosen = sa.select(_versions).where(*_under(_versions, key))
            return [
                _version(row) for row in db.execute(chosen.order_by(_versions.c.version.desc()))
            ]

        return await self._read(read)

    async def rollback_configuration(
        self,
        project: str,
        component_id: str,
        config_id: str,
        version: int,
        *,
        token: Token | None = None,
    ) -> Configuration:
        key = (project, component_id, config_id)

        def write(db: sa.Connection) -> Configuration:
            current = _current(db, key)
            content = _content(db, key, version)
            self._insert_version(
                db, key, current.version + 1, content, f"Rollback to version {version}", token
            )
            _set_current(db, key, current.version + 1)
            return _read_configuration(db, key)

        return await self._write(write)

    # -- rows ------------------------------------------------------------------------------------

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
        change_description: str = "",
        token: Token | None = None,
    ) -> ConfigurationRow:
        if row_id is None:
            row_id = await self._write(self._new_id)
        chosen_id = row_id

        def change(content: dict[str, Any], _: int) -> str:
            if any(row["id"] == chosen_id for row in content["rows"]):
                raise Conflict(
                    f"Row {chosen_id} already exists; choose another id or change that one."
                )
            told = change_description or f"Row {chosen_id} added"
            content["rows"] = [
                *content["rows"],
                {
                    "id": chosen_id,
                    "name": name,
                    "description": description,
                    "configuration": {} if configuration is None else configuration,
                    "is_disabled": is_disabled,
                    "version": 1,
                    "created": self._now(),
                    "change_description": told,
                    **_creator(token),
                },
            ]
            return told

        changed = await self._change((project, component_id, config_id), change, token)
        return next(row for row in changed.rows if row.id == chosen_id)

    async def update_row(
        self,
        project: str,
        component_id: str,
        config_id: str,
        row_id: str,
        changes: Mapping[str, Any],
        *,
        change_description: str = "",
        token: Token | None = None,
    ) -> ConfigurationRow:
        _refuse_unknown(changes, _ROW_CHANGES)

        def change(content: dict[str, Any], _: int) -> str:
            row = _find_row(content, row_id)
            told = change_description or f"Row {row_id} changed"
            if any(row[name] != value for name, value in changes.items()):
                changed = {"version": row["version"] + 1, "change_description": told}
                content["rows"] = [
                    each | dict(changes) | changed if each is row else each
                    for each in content["rows"]
                ]
            return told

        changed = await self._change((project, component_id, config_id), change, token)
        return next(row for row in changed.rows if row.id == row_id)

    async def delete_row(
        self,
        project: str,
        component_id: str,
        config_id: str,
        row_id: str,
        *,
        token: Token | None = None,
    ) -> None:
        key = (project, component_id, config_id)

        def change(content: dict[str, Any], _: int) -> str:
            row = _find_row(content, row_id)
            content["rows"] = [each for each in content["rows"] if each is not row]
            return f"Row {row_id} deleted"

        await self._change(key, change, token)

    # -- state -----------------------------------------------------------------------------------

    async def state(
        self, project: str, component_id: str, config_id: str, row_id: str | None = None
    ) -> State:
        key = (project, component_id, config_id)
        return await self._read(lambda db: _read_state(db, key, row_id))

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
    ) -> State:
        place = (project, component_id, config_id)

        def write(db: sa.Connection) -> State:
            stored = _read_state(db, place, row_id)
            if key is not None:
                known = sa.select(_state_keys.c.key).where(
                    _state_keys.c.project == project, _state_keys.c.key == key
                )
                if db.scalar(known) is not None:
                    return stored
                db.execute(sa.insert(_state_keys).values(project=project, key=key))
            if expected_version is not None and stored.version != expected_version:
                raise Conflict(
                    f"The state of configuration {config_id} is at version {stored.version}, not "
                    f"{expected_version}."
                )
            new = State(value, stored.version + 1)
            where = (*_under(_states, place), _states.c.row == (row_id or ""))
            db.execute(sa.delete(_states).where(*where))
            db.execute(
                sa.insert(_states).values(
                    project=project,
                    component=component_id,
                    configuration=config_id,
                    row=row_id or "",
                    version=new.version,
                    value=_dumps(value),
                )
            )
            return new

        return await self._write(write)

    # -- machinery -------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            engine = sa.create_engine(f"sqlite:///{self._path}", pool_size=READERS + 1)
            event.listen(engine, "connect", _prepare_connection)
            event.listen(engine, "begin", _begin)
            with _to_write(engine).begin() as db:
                _meta.create_all(db)
                found = db.scalar(sa.select(sa.func.max(_schema.c.version)))
                if found is None:
                    db.execute(sa.insert(_schema).values(version=SCHEMA_VERSION))
                    self._insert_project(db, "Main", ("queuev2",), {})
        except (OSError, sa.exc.OperationalError) as error:
            raise ApplicationError(
                f"The catalog {self._path} cannot be opened: {error}. Check that the folder can be "
                "written and the disk is not full."
            ) from error
        if found is not None and found > SCHEMA_VERSION:
            engine.dispose()
            raise ApplicationError(
                f"The catalog {self._path} was written by a newer version (its schema is {found}, "
                f"this version knows {SCHEMA_VERSION}): use that version."
            )
        self._engine = engine

    async def _read(self, action: Callable[[sa.Connection], T]) -> T:
        engine = self._opened()

        def work() -> T:
            with _explained(self._path), engine.connect() as db:
                return action(db)

        return await trio.to_thread.run_sync(work, limiter=self._readers)

    async def _write(self, action: Callable[[sa.Connection], T]) -> T:
        engine = self._opened()

        def work() -> T:
            with _explained(self._path), _to_write(engine).begin() as db:
                return action(db)

        async with self._writing:
            try:
                return await trio.to_thread.run_sync(work)
            finally:
                self._remembered.clear()

    async def _recall(self, kind: str, name: str, read: Callable[[sa.Connection], T]) -> T:
        """What was read a moment ago, or now."""
        key, now = (kind, name), time.monotonic()
        told, value = self._remembered.get(key, (-REMEMBER, None))
        if now - told < REMEMBER:
            return value  # type: ignore[no-any-return]
        fresh = await self._read(read)
        if not self._writing.locked():  # else it may be what is about to be replaced
            self._remembered[key] = (now, fresh)
        return fresh

    async def _change(
        self,
        key: tuple[str, str, str],
        change: Callable[[dict[str, Any], int], str],
        token: Token | None,
    ) -> Configuration:
        """Apply `change` to the content; a new version comes of it only when something changed."""

        def write(db: sa.Connection) -> Configuration:
            current = _current(db, key)
            before = _content(db, key, current.version)
            after = dict(before)
            told = change(after, current.version)
            if _dumps(after) != _dumps(before):
                self._insert_version(db, key, current.version + 1, after, told, token)
                _set_current(db, key, current.version + 1)
            return _read_configuration(db, key)

        return await self._write(write)

    def _insert_version(
        self,
        db: sa.Connection,
        key: tuple[str, str, str],
        version: int,
        content: Mapping[str, Any],
        change_description: str,
        token: Token | None,
    ) -> None:
        creator = _creator(token)
        db.execute(
            sa.insert(_versions).values(
                project=key[0],
                component=key[1],
                configuration=key[2],
                version=version,
                created=self._now(),
                change_description=change_description,
                token_id=creator["creator_token_id"],
                token_description=creator["creator_token_description"],
                content=_dumps(content),
            )
        )

    def _insert_project(
        self, db: sa.Connection, name: str, features: Sequence[str], limits: Mapping[str, Any]
    ) -> Project:
        values = {
            "name": name,
            "created": self._now(),
            "features": _dumps(list(features)),
            "limits": _dumps(dict(limits)),
        }
        return _find_project(db, str(_inserted(db.execute(sa.insert(_projects).values(values)))))

    def _new_id(self, db: sa.Connection) -> str:
        """A fresh id, of digits, above all that were given."""
        return str(_inserted(db.execute(sa.insert(_ids).values())))

    def _now(self) -> str:
        return self._clock().isoformat()

    def _opened(self) -> sa.Engine:
        if self._engine is None:
            raise ApplicationError("The catalog is not open.")
        return self._engine


class _explained:  # noqa: N801 - reads as a verb where it is used
    """Turns what SQLite refuses into an error that says which file and what to do."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, sa.exc.OperationalError | sa.exc.DatabaseError):
            raise ApplicationError(
                f"The catalog {self._path} does not answer: {error.orig}; check the disk that it "
                "is on."
            ) from error


def _prepare_connection(connection: Any, _: object) -> None:
    connection.isolation_level = (
        None  # transactions begin where we say, not where the driver guesses
    )
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}").close()


def _to_write(engine: sa.Engine) -> sa.Engine:
    """The engine, its transactions taking the right to write before they read."""
    return engine.execution_options(vaka_writes=True)


def _begin(db: sa.Connection) -> None:
    writes = db.get_execution_options().get("vaka_writes", False)
    db.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _at(table: sa.Table, key: tuple[str, str, str]) -> tuple[sa.ColumnElement[bool], ...]:
    return (table.c.project == key[0], table.c.component == key[1], table.c.id == key[2])


def _under(table: sa.Table, key: tuple[str, str, str]) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        table.c.project == key[0],
        table.c.component == key[1],
        table.c.configuration == key[2],
    )


def _current(db: sa.Connection, key: tuple[str, str, str]) -> sa.Row[Any]:
    row = db.execute(sa.select(_configurations).where(*_at(_configurations, key))).first()
    if row is None or row.is_deleted:
        raise _no_configuration(key[2])
    return row


def _set_current(
    db: sa.Connection, key: tuple[str, str, str], version: int, *, is_deleted: bool = False
) -> None:
    db.execute(
        sa.update(_configurations)
        .where(*_at(_configurations, key))
        .values(version=version, is_deleted=is_deleted)
    )


def _stored_version(db: sa.Connection, key: tuple[str, str, str], version: int) -> sa.Row[Any]:
    chosen = sa.select(_versions).where(*_under(_versions, key), _versions.c.version == version)
    row = db.execute(chosen).first()
    if row is None:
        raise NotFound(
            f"Version {version} of configuration {key[2]} not found",
            kind="configuration_version",
            id=str(version),
        )
    return row


def _content(db: sa.Connection, key: tuple[str, str, str], version: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(_stored_version(db, key, version).content)
    return content


def _read_configuration(
    db: sa.Connection, key: tuple[str, str, str], version: int | None = None
) -> Configuration:
    current = _current(db, key)
    row = _stored_version(db, key, current.version if version is None else version)
    told = _version(row)
    return Configuration(
        component_id=key[1],
        id=key[2],
        name=told.name,
        description=told.description,
        configuration=told.configuration,
        is_disabled=told.is_disabled,
        version=told.version,
        created=datetime.fromisoformat(current.created),
        change_description=told.change_description,
        rows=told.rows,
        creator_token_id=told.creator_token_id,
        creator_token_description=told.creator_token_description,
        updated=told.created,
    )


def _version(row: sa.Row[Any]) -> ConfigurationVersion:
    content = json.loads(row.content)
    return ConfigurationVersion(
        version=row.version,
        created=datetime.fromisoformat(row.created),
        change_description=row.change_description,
        name=content["name"],
        description=content["description"],
        is_disabled=content["is_disabled"],
        creator_token_id=row.token_id,
        creator_token_description=row.token_description,
        configuration=content["configuration"],
        rows=tuple(
            ConfigurationRow(**{**each, "created": datetime.fromisoformat(each["created"])})
            for each in content["rows"]
        ),
    )


def _find_row(content: Mapping[str, Any], row_id: str) -> dict[str, Any]:
    for row in content["rows"]:
        if row["id"] == row_id:
            return row  # type: ignore[no-any-return]
    raise NotFound(f"Row {row_id} not found", kind="row", id=row_id)


def _sorted_rows(rows: list[dict[str, Any]], order: Sequence[Any]) -> list[dict[str, Any]]:
    """The rows in the order wanted; rows that it does not name follow as they were."""
    places = {str(row_id): place for place, row_id in enumerate(order)}
    return sorted(rows, key=lambda row: places.get(row["id"], len(places)))


def _read_state(db: sa.Connection, key: tuple[str, str, str], row_id: str | None) -> State:
    current = _current(db, key)
    if row_id is not None:
        _find_row(_content(db, key, current.version), row_id)
    chosen = sa.select(_states).where(*_under(_states, key), _states.c.row == (row_id or ""))
    row = db.execute(chosen).first()
    return State({}, 0) if row is None else State(json.loads(row.value), row.version)


def _find_project(db: sa.Connection, project: str) -> Project:
    chosen = sa.select(_projects).where(sa.cast(_projects.c.id, sa.Text) == project)
    row = db.execute(chosen).first()
    if row is None:
        raise NotFound(f"Project {project} not found", kind="project", id=project)
    return _project(row)


def _project(row: sa.Row[Any]) -> Project:
    return Project(
        id=str(row.id),
        name=row.name,
        created=datetime.fromisoformat(row.created),
        features=tuple(json.loads(row.features)),
        limits=json.loads(row.limits),
    )


def _token(row: sa.Row[Any], project: Project) -> Token:
    access = json.loads(row.component_access)
    return Token(
        id=str(row.id),
        description=row.description,
        project=project,
        role=Role(row.role),
        created=datetime.fromisoformat(row.created),
        expires=None if row.expires is None else datetime.fromisoformat(row.expires),
        component_access=None if access is None else tuple(access),
        bucket_permissions=json.loads(row.bucket_permissions),
    )


def _component(document: dict[str, Any]) -> Component:
    """The component a document describes; `InvalidInput` when it cannot be one."""
    component_id = document.get("id")
    if not isinstance(component_id, str) or not component_id or "/" in component_id:
        raise InvalidInput(
            "A component needs an 'id': a text without '/', such as \"keboola.ex-db\".", path="id"
        )
    data = document.get("data", {})
    if not isinstance(data, dict):
        raise InvalidInput(f"The 'data' of component {component_id} is no object.", path="data")
    features = document.get("features") or []
    if not isinstance(features, list) or not all(isinstance(each, str) for each in features):
        raise InvalidInput(
            f"The 'features' of component {component_id} are no list of texts.", path="features"
        )
    return Component(
        id=component_id,
        name=str(document.get("name") or component_id),
        type=str(document.get("type") or "other"),
        data=data,
        features=tuple(features),
        description=str(document.get("description") or ""),
        extra={key: value for key, value in document.items() if key not in _COMPONENT_FIELDS},
    )


def _require_component(db: sa.Connection, component_id: str) -> None:
    if db.scalar(sa.select(_components.c.id).where(_components.c.id == component_id)) is None:
        raise _no_component(component_id)


def _no_component(component_id: str) -> NotFound:
    return NotFound(f"Component {component_id} not found", kind="component", id=component_id)


def _no_configuration(config_id: str) -> NotFound:
    return NotFound(f"Configuration {config_id} not found", kind="configuration", id=config_id)


def _refuse_unknown(changes: Mapping[str, Any], known: frozenset[str]) -> None:
    unknown = sorted(set(changes) - known)
    if unknown:
        raise InvalidInput(
            f"{', '.join(unknown)} cannot be changed; there are {', '.join(sorted(known))}."
        )


def _creator(token: Token | None) -> dict[str, str | None]:
    return {
        "creator_token_id": None if token is None else token.id,
        "creator_token_description": None if token is None else token.description,
    }


def _inserted(result: sa.CursorResult[Any]) -> int:
    key = result.inserted_primary_key
    assert key is not None  # noqa: S101 - every table that this is asked of has one
    return int(key[0])


def _hash(secret: str) -> str:
    # 40 random letters and digits cannot be guessed, so a fast hash hides them well enough
    return hashlib.sha256(secret.encode()).hexdigest()


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

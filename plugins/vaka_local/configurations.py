"""Configurations with rows, versions and states, within one transaction.

A configuration has a head, which says which version is the current one, and versions, which never
change. So have its rows. A version of a configuration lists the versions of its rows.

A head is of one branch. A development branch has none until a configuration is changed in it: then the
default branch's is copied with all its versions, and what is changed is the copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vaka.errors import Conflict, InvalidInput, NotFound
from vaka.models.catalog import (
    Configuration,
    ConfigurationRow,
    ConfigurationVersion,
    Token,
)
from vaka.models.ulid import new_ulid
from vaka_local.database import (
    branch_states,
    branches,
    catalog_metadata,
    components,
    configuration_rows,
    configuration_versions,
    configurations,
    counters,
    row_versions,
    state_keys,
)
from vaka_local.jsontext import from_text, to_text

_LONGEST_ID: Final = 255
_EMPTY: Final = "{}"

# Of what every job asks and writes: made once, because making a statement costs as much as running it.
_HEAD = (
    sa.select(configurations)
    .join(branches, branches.c.id == configurations.c.branch_id)
    .where(
        configurations.c.project_id == sa.bindparam("project"),
        configurations.c.component_id == sa.bindparam("component"),
        configurations.c.id == sa.bindparam("config"),
        sa.or_(branches.c.is_default, branches.c.id == sa.bindparam("development")),
    )
    .order_by(branches.c.is_default)  # a branch's own comes first
    .limit(1)
)
_UPDATE_HEAD = configurations.update().where(configurations.c.key == sa.bindparam("head"))
_VERSION = sa.select(configuration_versions).where(
    configuration_versions.c.configuration_key == sa.bindparam("head"),
    configuration_versions.c.version == sa.bindparam("number"),
)


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes something, and when."""

    now: datetime
    token: Token | None

    @property
    def columns(self) -> dict[str, Any]:
        return {
            "created": self.now,
            "creator_id": self.token and self.token.id,
            "creator_description": self.token and self.token.description,
        }


@dataclass(frozen=True, slots=True)
class Content:
    """What a version of a configuration or of a row says; `configuration` is JSON as text."""

    name: str
    description: str
    configuration: str
    is_disabled: bool

    @classmethod
    def new(cls, name: str, description: str, configuration: Any, *, is_disabled: bool) -> Content:
        """A content that is valid, or `InvalidInput`."""
        value = {} if configuration is None else configuration
        return cls("", "", _EMPTY, False).changed(
            {
                "name": name,
                "description": description,
                "configuration": value,
                "is_disabled": is_disabled,
            }
        )

    @classmethod
    def of(cls, row: Any) -> Content:
        return cls(row.name, row.description, row.configuration, row.is_disabled)

    def changed(self, changes: Mapping[str, Any]) -> Content:
        """The content with some of its members replaced, or `InvalidInput`."""
        values: dict[str, Any] = {}
        for name, value in changes.items():
            kind = _KINDS.get(name)
            if kind is None:
                raise InvalidInput(
                    f'"{name}" cannot be changed. What can: {", ".join(_KINDS)}.', path=name
                )
            if not isinstance(value, kind):
                raise InvalidInput(f'"{name}" must be of type {kind.__name__}.', path=name)
            values[name] = to_text(value, name) if name == "configuration" else value
        return replace(self, **values)

    @property
    def columns(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "description": self.description,
            "configuration": self.configuration,
            "is_disabled": self.is_disabled,
        }


_KINDS: Final[dict[str, type]] = {
    "name": str,
    "description": str,
    "configuration": object,
    "is_disabled": bool,
}


@dataclass(frozen=True, slots=True)
class Configurations:
    """The configurations of one project, as one branch sees them."""

    connection: Connection
    project: int
    author: Author
    development: int | None = None
    """The number of the development branch; None in the default one."""

    @property
    def branch(self) -> int:
        """The number of the branch, whichever it is."""
        if self.development is not None:
            return self.development
        main = branches.c.project_id == self.project, branches.c.is_default
        return int(self.connection.execute(sa.select(branches.c.id).where(*main)).scalar_one())

    # -- reading ---------------------------------------------------------------------------------

    def find(
        self, component_id: str | None = None, *, is_deleted: bool = False
    ) -> list[Configuration]:
        """All configurations that are not in the trash, or all that are, by component and age."""
        if component_id is not None:
            self._check_component(component_id)
        keys = self.keys(component_id, is_deleted=is_deleted)
        versions = configuration_versions
        heads = self.connection.execute(
            sa.select(configurations)
            .where(configurations.c.key.in_(keys))
            .order_by(configurations.c.component_id, configurations.c.key)
        ).all()
        current = {
            row.configuration_key: row
            for row in self.connection.execute(
                sa.select(versions)
                .join(configurations, configurations.c.key == versions.c.configuration_key)
                .where(
                    configurations.c.key.in_(keys),
                    versions.c.version == configurations.c.version,
                )
            )
        }
        rows: dict[int, dict[str, ConfigurationRow]] = {}
        pinned = sa.and_(
            row_versions.c.configuration_key == configuration_rows.c.configuration_key,
            row_versions.c.row_id == configuration_rows.c.id,
            row_versions.c.version == configuration_rows.c.version,
        )
        for row in self.connection.execute(
            _row_columns()
            .join(configuration_rows, pinned)
            .join(configurations, configurations.c.key == row_versions.c.configuration_key)
            .where(configurations.c.key.in_(keys), configuration_rows.c.is_deleted.is_(False))
            .order_by(configuration_rows.c.configuration_key, configuration_rows.c.position)
        ):
            rows.setdefault(row.configuration_key, {})[row.row_id] = _row(row)
        return [
            _configuration(head, current[head.key], rows.get(head.key, {}).values())
            for head in heads
        ]

    def keys(self, component_id: str | None, *, is_deleted: bool = False) -> sa.Select[tuple[Any]]:
        """The keys of the heads that the branch sees, in the trash or out of it."""
        head = configurations.c
        conditions = [
            head.project_id == self.project,
            head.is_deleted.is_(is_deleted),
            head.is_purged.is_(False),
        ]
        if component_id is not None:
            conditions.append(head.component_id == component_id)
        seen: sa.ColumnElement[bool] = branches.c.is_default
        if self.development is not None:
            own = configurations.alias("own")
            hidden = sa.exists().where(
                own.c.branch_id == self.development,
                own.c.component_id == head.component_id,
                own.c.id == head.id,
            )
            seen = sa.or_(branches.c.id == self.development, sa.and_(seen, ~hidden))
        return (
            sa.select(head.key)
            .join(branches, branches.c.id == head.branch_id)
            .where(*conditions, seen)
        )

    def get(self, component_id: str, config_id: str, version: int | None = None) -> Configuration:
        """One configuration, as it is or as it was."""
        head = self.head(component_id, config_id)
        wanted = self._version(head, head.version if version is None else version)
        return _configuration(head, wanted, self._rows_of(head.key, [wanted])[wanted.version])

    def versions(
        self, component_id: str, config_id: str, limit: int | None = None, offset: int = 0
    ) -> list[ConfigurationVersion]:
        """Versions, the newest first."""
        head = self.head(component_id, config_id)
        found = self.connection.execute(
            sa.select(configuration_versions)
            .where(configuration_versions.c.configuration_key == head.key)
            .order_by(configuration_versions.c.version.desc())
            .limit(limit)
            .offset(offset)
        ).all()
        rows = self._rows_of(head.key, found)
        return [_version_of(each, _sorted(rows[each.version], each)) for each in found]

    def row_versions(
        self,
        component_id: str,
        config_id: str,
        row_id: str,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[ConfigurationVersion]:
        """Versions of a row, the newest first."""
        head = self.head(component_id, config_id)
        self.row_head(head.key, row_id)
        found = self.connection.execute(
            sa.select(row_versions)
            .where(row_versions.c.configuration_key == head.key, row_versions.c.row_id == row_id)
            .order_by(row_versions.c.version.desc())
            .limit(limit)
            .offset(offset)
        )
        return [_version_of(each) for each in found]

    def row_version(
        self, component_id: str, config_id: str, row_id: str, version: int
    ) -> ConfigurationVersion:
        """One version of a row."""
        head = self.head(component_id, config_id)
        row = self.row_head(head.key, row_id)
        return _version_of(self._row_version(head.key, row, version))

    def row(self, head: Any, row_id: str) -> ConfigurationRow:
        """One row as it is."""
        rows = self._rows_of(head.key, [self._version(head, head.version)])[head.version]
        found = [row for row in rows if row.id == row_id]
        if not found:
            raise _no_row(row_id)
        return found[0]

    def head(self, component_id: str, config_id: str) -> Any:
        """What there is of a configuration whatever its version, or `NotFound`."""
        head = self._any_head(component_id, config_id)
        if head is None or head.is_deleted:
            raise NotFound(
                f"Configuration {config_id} not found", kind="configuration", id=config_id
            )
        return head

    def _any_head(self, component_id: str, config_id: str) -> Any:
        head = self._hidden_head(component_id, config_id)
        return None if head is None or head.is_purged else head

    def _hidden_head(self, component_id: str, config_id: str) -> Any:
        of_this = {
            "project": self.project,
            "component": component_id,
            "config": config_id,
            "development": self.development or 0,
        }
        return self.connection.execute(_HEAD, of_this).first()

    def _version(self, head: Any, version: int) -> Any:
        found = None
        if 0 < version <= head.version:  # a number that the database can have
            of_this = {"head": head.key, "number": version}
            found = self.connection.execute(_VERSION, of_this).first()
        if found is None:
            raise NotFound(
                f"Version {version} of configuration {head.id} not found",
                kind="version",
                id=str(version),
            )
        return found

    def _rows_of(self, key: int, versions: Sequence[Any]) -> dict[int, list[ConfigurationRow]]:
        """The rows that versions of a configuration have, by version."""
        pins = {
            each.version: [(row_id, version) for row_id, version in from_text(each.rows)]
            for each in versions
        }
        if not any(pins.values()):
            return {version: [] for version in pins}
        found = {
            (row.row_id, row.version): _row(row)
            for row in self.connection.execute(
                _row_columns()
                .join(
                    configuration_rows,
                    sa.and_(
                        row_versions.c.configuration_key == configuration_rows.c.configuration_key,
                        row_versions.c.row_id == configuration_rows.c.id,
                    ),
                )
                .where(row_versions.c.configuration_key == key)
            )
        }
        return {version: [found[pin] for pin in pinned] for version, pinned in pins.items()}

    def _check_component(self, component_id: str) -> None:
        found = self.connection.execute(
            sa.select(components.c.id).where(components.c.id == component_id)
        ).first()
        if found is None:
            raise no_component(component_id)

    # -- writing ---------------------------------------------------------------------------------

    def own(self, head: Any) -> Any:
        """The head to be changed: in a development branch its own, copied now when it has none yet."""
        if self.development is None or head.branch_id == self.development:
            return head
        values = head._asdict() | {"branch_id": self.development}
        values |= {"state": _EMPTY, "state_version": 0}
        del values["key"]
        insert = configurations.insert().values(**values).returning(configurations.c.key)
        key = self.connection.execute(insert).scalar_one()
        for table in (
            configuration_versions,
            configuration_rows,
            row_versions,
            catalog_metadata,
            state_keys,
        ):
            new = {"configuration_key": key, "branch_id": self.development}
            names = [column.name for column in table.columns if column.autoincrement is not True]
            copied = [sa.literal(new[name]) if name in new else table.c[name] for name in names]
            self.connection.execute(
                table.insert().from_select(
                    names, sa.select(*copied).where(table.c.configuration_key == head.key)
                )
            )
        self.connection.execute(
            configuration_rows.update()
            .where(configuration_rows.c.configuration_key == key)
            .values(state=_EMPTY, state_version=0)
        )
        self.connection.execute(
            branch_states.update()
            .where(
                branch_states.c.configuration_key == head.key,
                branch_states.c.branch_id == self.development,
            )
            .values(configuration_key=key)
        )
        return self._any_head(head.component_id, head.id)

    def create(
        self,
        component_id: str,
        config_id: str | None,
        content: Content,
        description: str,
        *,
        state: Any = None,
        rows: Iterable[tuple[str, Content]] = (),
        sort_order: str = "[]",
    ) -> Configuration:
        """A new configuration with `rows`, or one out of the trash with its id."""
        self._check_component(component_id)
        _check_name(content)
        if config_id is None:
            config_id = self._new_id(lambda each: self._hidden_head(component_id, each) is None)
        check_id(config_id, "configurationId")
        head = self._any_head(component_id, config_id)
        if head is not None and not head.is_deleted:
            raise Conflict(f"Configuration {config_id} already exists")
        description = description or "Configuration created"
        if head is None:
            self._remove(self._hidden_head(component_id, config_id))
            self.connection.execute(
                configurations.insert().values(
                    project_id=self.project,
                    branch_id=self.branch,
                    component_id=component_id,
                    id=config_id,
                    version=0,
                    is_deleted=False,
                    state=_EMPTY,
                    state_version=0,
                    **self.author.columns,
                )
            )
            head = self._any_head(component_id, config_id)
        else:
            head = self.own(head)
            self._forget_rows(head.key)
            self._forget_branches(head.key)
            self.connection.execute(
                catalog_metadata.delete().where(catalog_metadata.c.configuration_key == head.key)
            )
            self.connection.execute(
                configurations.update()
                .where(configurations.c.key == head.key)
                .values(is_deleted=False, state=_EMPTY, state_version=0)
            )
        for position, (row_id, row) in enumerate(rows):
            self._insert_row(head.key, row_id, position)
            self._write_row(head.key, row_id, 1, row, description)
        self._write(head, content, sort_order, description)
        if state is not None:
            self.write_state(head, None, to_text(state, "state"), 1)
        return self.get(component_id, config_id)

    def copy(
        self,
        component_id: str,
        config_id: str,
        version: int,
        name: str | None,
        description: str | None,
        change: str,
    ) -> Configuration:
        """A new configuration that is as a version of another one."""
        head = self.head(component_id, config_id)
        source = self._version(head, version)
        content = Content.of(source)
        given = {"name": name, "description": description}
        content = content.changed({key: each for key, each in given.items() if each is not None})
        rows = [(row.id, _content_of(row)) for row in self._rows_of(head.key, [source])[version]]
        change = change or f"Copied from configuration {config_id}, version {version}"
        return self.create(
            component_id, None, content, change, rows=rows, sort_order=source.rows_sort_order
        )

    def update(
        self,
        component_id: str,
        config_id: str,
        changes: Mapping[str, Any],
        description: str,
        expected_version: int | None,
    ) -> Configuration:
        """Change a configuration; nothing is written when nothing would be different."""
        head = self.head(component_id, config_id)
        if expected_version is not None and expected_version != head.version:
            raise Conflict(
                f"Configuration {config_id} has version {head.version}, not {expected_version}: "
                "somebody else has changed it. Read it again."
            )
        before = self._version(head, head.version)
        others = dict(changes)
        order = before.rows_sort_order
        if "rows_sort_order" in others:
            order = _sort_order(others.pop("rows_sort_order"))
        content = Content.of(before).changed(others)
        _check_name(content)
        if content != Content.of(before) or order != before.rows_sort_order:
            self._write(self.own(head), content, order, description or "Configuration updated")
        return self.get(component_id, config_id)

    def delete(self, component_id: str, config_id: str) -> None:
        """Move to the trash, or remove from it for good."""
        head = self._any_head(component_id, config_id)
        if head is None:
            raise NotFound(
                f"Configuration {config_id} not found", kind="configuration", id=config_id
            )
        head = self.own(head)
        if head.is_deleted:
            self._purge(head)
            return
        before = self._version(head, head.version)
        content = Content.of(before)
        self._write(head, content, before.rows_sort_order, "Configuration deleted")
        self.connection.execute(
            configurations.update().where(configurations.c.key == head.key).values(is_deleted=True)
        )

    def _purge(self, head: Any) -> None:
        """Remove a head from the trash; in a development branch it goes on hiding the default's."""
        default = Configurations(self.connection, self.project, self.author)
        if self.development is None or not default._any_head(head.component_id, head.id):
            self._remove(head)
            return
        self._forget_branches(head.key)
        self.connection.execute(
            configurations.update().where(configurations.c.key == head.key).values(is_purged=True)
        )

    def _remove(self, head: Any) -> None:
        if head is not None:
            self.connection.execute(configurations.delete().where(configurations.c.key == head.key))

    def restore(self, component_id: str, config_id: str) -> Configuration:
        """Take a configuration out of the trash as it was."""
        head = self._any_head(component_id, config_id)
        if head is None or not head.is_deleted:
            raise NotFound(
                f"Configuration {config_id} not found in the trash",
                kind="configuration",
                id=config_id,
            )
        head = self.own(head)
        before = self._version(head, head.version)
        self._write(head, Content.of(before), before.rows_sort_order, "Configuration restored")
        self.connection.execute(
            configurations.update().where(configurations.c.key == head.key).values(is_deleted=False)
        )
        return self.get(component_id, config_id)

    def rollback(
        self, component_id: str, config_id: str, version: int, description: str = ""
    ) -> Configuration:
        """A new version that is as an older one was; states stay as they are."""
        head = self.head(component_id, config_id)
        target = self._version(head, version)
        wanted = {row.id: row for row in self._rows_of(head.key, [target])[version]}
        change = description or f"Rollback to version {version}"
        head = self.own(head)
        for row in self._row_heads(head.key):
            if row.id not in wanted:
                self._update_row_head(head.key, row.id, is_deleted=True)
                continue
            content = _content_of(wanted[row.id])
            if row.is_deleted or content != self._row_content(head.key, row):
                self._write_row(head.key, row.id, row.version + 1, content, change)
        self._write(head, Content.of(target), target.rows_sort_order, change)
        return self.get(component_id, config_id)

    def create_row(
        self,
        component_id: str,
        config_id: str,
        row_id: str | None,
        content: Content,
        description: str,
        state: Any = None,
    ) -> ConfigurationRow:
        """A new row, or one that was deleted with its id."""
        head = self.own(self.head(component_id, config_id))
        heads = {row.id: row for row in self._row_heads(head.key)}
        if row_id is None:
            row_id = self._new_id(lambda each: each not in heads)
        check_id(row_id, "rowId")
        before = heads.get(row_id)
        if before is not None and not before.is_deleted:
            raise Conflict(f"Row {row_id} already exists")
        description = description or f"Row {row_id} added"
        if before is None:
            self._insert_row(head.key, row_id, len(heads))
        else:
            self._update_row_head(head.key, row_id, state=_EMPTY, state_version=0)
            self._forget_branches(head.key, row_id)
        version = 1 if before is None else before.version + 1
        self._write_row(head.key, row_id, version, content, description)
        self._write_again(head, description)
        if state is not None:
            self.write_state(head, row_id, to_text(state, "state"), 1)
        return self.row(self.head(component_id, config_id), row_id)

    def _insert_row(self, key: int, row_id: str, position: int) -> None:
        """The head of a new row, which has no version yet."""
        self.connection.execute(
            configuration_rows.insert().values(
                configuration_key=key,
                id=row_id,
                position=position,
                version=0,
                is_deleted=False,
                state=_EMPTY,
                state_version=0,
                **self.author.columns,
            )
        )

    def update_row(
        self,
        component_id: str,
        config_id: str,
        row_id: str,
        changes: Mapping[str, Any],
        description: str,
        expected_version: int | None = None,
    ) -> ConfigurationRow:
        """Change a row; nothing is written when nothing would be different."""
        head = self.head(component_id, config_id)
        row = self.row_head(head.key, row_id)
        if expected_version is not None and expected_version != row.version:
            raise Conflict(
                f"Row {row_id} of configuration {config_id} has version {row.version}, not "
                f"{expected_version}: somebody has changed it meanwhile."
            )
        before = self._row_content(head.key, row)
        content = before.changed(changes)
        if content != before:
            description = description or f"Row {row_id} changed"
            head = self.own(head)
            self._write_row(head.key, row_id, row.version + 1, content, description)
            self._write_again(head, description)
        return self.row(self.head(component_id, config_id), row_id)

    def rollback_row(
        self, component_id: str, config_id: str, row_id: str, version: int, description: str = ""
    ) -> ConfigurationRow:
        """A new version of a row that is as an older one was; its state stays as it is."""
        head = self.head(component_id, config_id)
        row = self.row_head(head.key, row_id)
        content = Content.of(self._row_version(head.key, row, version))
        description = description or f"Rollback to version {version}"
        head = self.own(head)
        self._write_row(head.key, row_id, row.version + 1, content, description)
        self._write_again(head, description)
        return self.row(self.head(component_id, config_id), row_id)

    def copy_row(
        self,
        component_id: str,
        config_id: str,
        row_id: str,
        version: int,
        target: str | None,
        description: str,
    ) -> ConfigurationRow:
        """A new row that is as a version of another one."""
        head = self.head(component_id, config_id)
        row = self.row_head(head.key, row_id)
        content = Content.of(self._row_version(head.key, row, version))
        description = description or (
            f"Copied from row {row_id} of configuration {config_id}, version {version}"
        )
        return self.create_row(component_id, target or config_id, None, content, description)

    def delete_row(
        self, component_id: str, config_id: str, row_id: str, description: str = ""
    ) -> None:
        """Take a row out of the configuration."""
        head = self.head(component_id, config_id)
        self.row_head(head.key, row_id)
        head = self.own(head)
        self._update_row_head(head.key, row_id, is_deleted=True)
        self._write_again(head, description or f"Row {row_id} deleted")

    # -- states ----------------------------------------------------------------------------------

    def state_in_branch(self, key: int, row_id: str | None) -> sa.ColumnElement[bool]:
        """Which of `branch_states` is a development branch's own."""
        return sa.and_(
            branch_states.c.configuration_key == key,
            branch_states.c.row_id == (row_id or ""),
            branch_states.c.branch_id == self.development,
        )

    def write_state(self, head: Any, row_id: str | None, text: str, version: int) -> None:
        """Give a configuration or a row a state, in the branch."""
        values: dict[str, Any] = {"state": text, "state_version": version}
        if self.development is not None:
            of_branch = self.state_in_branch(head.key, row_id)
            self.connection.execute(branch_states.delete().where(of_branch))
            self.connection.execute(
                branch_states.insert().values(
                    configuration_key=head.key,
                    row_id=row_id or "",
                    branch_id=self.development,
                    **values,
                )
            )
        elif row_id is None:
            self.connection.execute(_UPDATE_HEAD, {"head": head.key} | values)
        else:
            self._update_row_head(head.key, row_id, **values)

    # -- versions --------------------------------------------------------------------------------

    def _write(self, head: Any, content: Content, sort_order: str, description: str) -> None:
        """A new version of a configuration, with the rows that there are now."""
        rows = [[row.id, row.version] for row in self._row_heads(head.key) if not row.is_deleted]
        self.connection.execute(
            configuration_versions.insert().values(
                configuration_key=head.key,
                version=head.version + 1,
                change_description=description,
                identifier=new_ulid(self.author.now),
                rows_sort_order=sort_order,
                rows=to_text(rows, "rows"),
                **content.columns,
                **self.author.columns,
            )
        )
        self.connection.execute(
            configurations.update()
            .where(configurations.c.key == head.key)
            .values(version=head.version + 1)
        )

    def _write_again(self, head: Any, description: str) -> None:
        """A new version of a configuration of which only rows have changed."""
        before = self._version(head, head.version)
        self._write(head, Content.of(before), before.rows_sort_order, description)

    def _write_row(
        self, key: int, row_id: str, version: int, content: Content, description: str
    ) -> None:
        self.connection.execute(
            row_versions.insert().values(
                configuration_key=key,
                row_id=row_id,
                version=version,
                change_description=description,
                identifier=new_ulid(self.author.now),
                **content.columns,
                **self.author.columns,
            )
        )
        self._update_row_head(key, row_id, version=version, is_deleted=False)

    def _row_heads(self, key: int) -> Sequence[Any]:
        return self.connection.execute(
            sa.select(configuration_rows)
            .where(configuration_rows.c.configuration_key == key)
            .order_by(configuration_rows.c.position)
        ).all()

    def row_head(self, key: int, row_id: str) -> Any:
        for row in self._row_heads(key):
            if row.id == row_id and not row.is_deleted:
                return row
        raise _no_row(row_id)

    def _row_content(self, key: int, row: Any) -> Content:
        return Content.of(self._row_version(key, row, row.version))

    def _row_version(self, key: int, row: Any, version: int) -> Any:
        found = None
        if 0 < version <= row.version:  # a number that the database can have
            found = self.connection.execute(
                sa.select(row_versions).where(
                    row_versions.c.configuration_key == key,
                    row_versions.c.row_id == row.id,
                    row_versions.c.version == version,
                )
            ).first()
        if found is None:
            raise NotFound(
                f"Version {version} of row {row.id} not found", kind="version", id=str(version)
            )
        return found

    def _update_row_head(self, key: int, row_id: str, **values: Any) -> None:
        self.connection.execute(
            configuration_rows.update()
            .where(configuration_rows.c.configuration_key == key, configuration_rows.c.id == row_id)
            .values(**values)
        )

    def _forget_rows(self, key: int) -> None:
        """Delete the rows of a configuration that is made anew; its old versions keep theirs."""
        self.connection.execute(
            configuration_rows.update()
            .where(configuration_rows.c.configuration_key == key)
            .values(is_deleted=True)
        )

    def _forget_branches(self, key: int, row_id: str | None = None) -> None:
        """Delete the states that branches have of a configuration, or of a row, that is made anew."""
        gone = branch_states.c.configuration_key == key
        if row_id is not None:
            gone = sa.and_(gone, branch_states.c.row_id == row_id)
        self.connection.execute(branch_states.delete().where(gone))

    def _new_id(self, is_free: Any) -> str:
        """An id of digits that nothing has."""
        while True:
            number = next_number(self.connection, "configuration")
            if is_free(str(number)):
                return str(number)


def next_number(connection: Connection, name: str) -> int:
    """A number that this counter has not given before."""
    updated = connection.execute(
        counters.update().where(counters.c.name == name).values(value=counters.c.value + 1)
    )
    if not updated.rowcount:
        connection.execute(counters.insert().values(name=name, value=1))
    value = sa.select(counters.c.value).where(counters.c.name == name)
    return int(connection.execute(value).scalar_one())


def check_id(text: str, what: str) -> None:
    """Raise `InvalidInput` when `text` cannot be an id, which is part of paths and addresses."""
    if not 0 < len(text) <= _LONGEST_ID or "/" in text or not text.isprintable() or " " in text:
        raise InvalidInput(
            f'"{text}" cannot be an id: it has 1 to {_LONGEST_ID} characters, no blank and no "/".',
            path=what,
        )


def no_component(component_id: str) -> NotFound:
    return NotFound(f"Component {component_id} not found", kind="component", id=component_id)


def _no_row(row_id: str) -> NotFound:
    return NotFound(f"Row {row_id} not found", kind="row", id=row_id)


def _check_name(content: Content) -> None:
    if not content.name.strip():
        raise InvalidInput('"name" must not be empty.', path="name")


def _sort_order(value: Any) -> str:
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) for each in value):
        raise InvalidInput('"rows_sort_order" must be a list of row ids.', path="rows_sort_order")
    return to_text(list(value), "rows_sort_order")


def _row_columns() -> sa.Select[Any]:
    """Versions of rows with what their heads say, once the two are joined."""
    head = configuration_rows.c
    return sa.select(
        row_versions,
        head.created.label("row_created"),
        head.creator_id.label("row_creator_id"),
        head.creator_description.label("row_creator_description"),
    ).select_from(row_versions)


def _row(row: Any) -> ConfigurationRow:
    return ConfigurationRow(
        id=row.row_id,
        name=row.name,
        description=row.description,
        configuration=from_text(row.configuration),
        is_disabled=row.is_disabled,
        version=row.version,
        created=row.row_created,
        change_description=row.change_description,
        creator_token_id=row.row_creator_id,
        creator_token_description=row.row_creator_description,
        version_identifier=row.identifier,
    )


def _content_of(row: ConfigurationRow) -> Content:
    text = to_text(row.configuration, "configuration")
    return Content(row.name, row.description, text, row.is_disabled)


def _version_of(row: Any, rows: tuple[ConfigurationRow, ...] = ()) -> ConfigurationVersion:
    """A version of a configuration, or of a row."""
    return ConfigurationVersion(
        version=row.version,
        created=row.created,
        change_description=row.change_description,
        name=row.name,
        description=row.description,
        is_disabled=row.is_disabled,
        creator_token_id=row.creator_id,
        creator_token_description=row.creator_description,
        configuration=from_text(row.configuration),
        rows=rows,
        version_identifier=row.identifier,
    )


def _sorted(rows: Iterable[ConfigurationRow], version: Any) -> tuple[ConfigurationRow, ...]:
    """Rows in the order that a version gives them; those it does not name come last, oldest first."""
    places = {row_id: place for place, row_id in enumerate(from_text(version.rows_sort_order))}
    return tuple(sorted(rows, key=lambda row: places.get(row.id, len(places))))


def _configuration(head: Any, version: Any, rows: Iterable[ConfigurationRow]) -> Configuration:
    return Configuration(
        component_id=head.component_id,
        id=head.id,
        name=version.name,
        description=version.description,
        configuration=from_text(version.configuration),
        is_disabled=version.is_disabled,
        version=version.version,
        created=head.created,
        change_description=version.change_description,
        rows=_sorted(rows, version),
        creator_token_id=head.creator_id,
        creator_token_description=head.creator_description,
        updated=version.created,
        updated_token_id=version.creator_id,
        updated_token_description=version.creator_description,
        version_identifier=version.identifier,
        rows_sort_order=tuple(from_text(version.rows_sort_order)),
        is_deleted=head.is_deleted,
    )

"""What is said of configurations and branches: their metadata, within one transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from vaka.errors import NotFound
from vaka.models.catalog import ConfigurationMetadata
from vaka.models.storage import MetadataEntry
from vaka_local.configurations import Configurations
from vaka_local.database import catalog_metadata, configurations


def entries(
    here: Configurations, component_id: str | None, config_id: str | None
) -> list[MetadataEntry]:
    """The metadata of a configuration, or of the branch."""
    head = _head(here, component_id, config_id)
    return [_entry(row) for row in _rows(here, head)]


def put(
    here: Configurations,
    component_id: str | None,
    config_id: str | None,
    values: Mapping[str, str],
) -> list[MetadataEntry]:
    """Set keys; those that are there keep their ids."""
    head = _head(here, component_id, config_id)
    if head is not None and values:
        head = here.own(head)
    ids = {row.key: row.id for row in _rows(here, head)}
    for name, value in values.items():
        written = {"value": value, "written": here.author.now}
        if name in ids:
            here.connection.execute(
                catalog_metadata.update()
                .where(catalog_metadata.c.id == ids[name])
                .values(**written)
            )
        else:
            here.connection.execute(
                catalog_metadata.insert().values(
                    branch_id=here.branch,
                    configuration_key=None if head is None else head.key,
                    key=name,
                    **written,
                )
            )
    return [_entry(row) for row in _rows(here, head)]


def delete(
    here: Configurations, component_id: str | None, config_id: str | None, entry_id: str
) -> None:
    """Take an entry away."""
    head = _head(here, component_id, config_id)
    key = next((row.key for row in _rows(here, head) if str(row.id) == entry_id), None)
    if key is None:
        raise NotFound("The supplied metadata ID was not found", kind="metadata", id=entry_id)
    if head is not None:
        head = here.own(head)
    here.connection.execute(
        catalog_metadata.delete().where(_is_of(here, head), catalog_metadata.c.key == key)
    )


def find(
    here: Configurations,
    component_id: str | None,
    config_id: str | None,
    keys: Collection[str] | None,
) -> list[ConfigurationMetadata]:
    """Configurations with metadata, and what they have of these keys."""
    head = configurations.c
    conditions: list[sa.ColumnElement[bool]] = [head.key.in_(here.keys(component_id))]
    if config_id is not None:
        conditions.append(head.id == config_id)
    if keys is not None:
        conditions.append(catalog_metadata.c.key.in_(keys))
    found: dict[tuple[str, str], list[MetadataEntry]] = {}
    for row in here.connection.execute(
        sa.select(catalog_metadata, head.component_id, head.id.label("config_id"))
        .join(configurations, head.key == catalog_metadata.c.configuration_key)
        .where(*conditions)
        .order_by(head.component_id, head.key, catalog_metadata.c.id)
    ):
        found.setdefault((row.component_id, row.config_id), []).append(_entry(row))
    return [ConfigurationMetadata(*of, tuple(said)) for of, said in found.items()]


def _head(here: Configurations, component_id: str | None, config_id: str | None) -> Any:
    """The configuration that is meant; None when it is the branch."""
    if component_id is None or config_id is None:
        return None
    return here.head(component_id, config_id)


def _rows(here: Configurations, head: Any) -> Sequence[Any]:
    statement = sa.select(catalog_metadata).where(_is_of(here, head))
    return here.connection.execute(statement.order_by(catalog_metadata.c.id)).all()


def _is_of(here: Configurations, head: Any) -> sa.ColumnElement[bool]:
    if head is None:
        of_branch = catalog_metadata.c.branch_id == here.branch
        return sa.and_(catalog_metadata.c.configuration_key.is_(None), of_branch)
    return sa.and_(catalog_metadata.c.configuration_key == head.key)


def _entry(row: Any) -> MetadataEntry:
    return MetadataEntry(str(row.id), row.key, row.value, "user", row.written)

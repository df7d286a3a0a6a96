"""Workspaces on record, within one transaction. There is no warehouse behind any of them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from vaka.errors import NotFound
from vaka.models.catalog import Workspace
from vaka_local.configurations import Configurations
from vaka_local.database import configurations, workspaces

_FOUND = sa.select(
    workspaces, configurations.c.component_id, configurations.c.id.label("config_id")
)


def all_workspaces(here: Configurations) -> list[Workspace]:
    """Those of a branch, by id."""
    statement = _of_branch(here).order_by(workspaces.c.id)
    return [_workspace(row) for row in here.connection.execute(statement)]


def create(
    here: Configurations, component_id: str, config_id: str, is_read_only: bool, key: str | None
) -> Workspace:
    """A new workspace of a configuration, or the one that `key` has made before."""
    head = here.head(component_id, config_id)
    if key is not None:
        again = _of_branch(here).where(workspaces.c.request_key == key)
        row = here.connection.execute(again).first()
        if row is not None:
            return _workspace(row)
    insert = workspaces.insert().values(
        branch_id=here.branch,
        configuration_key=head.key,
        is_read_only=is_read_only,
        request_key=key,
        **here.author.columns,
    )
    number = here.connection.execute(insert.returning(workspaces.c.id)).scalar_one()
    made = _of_branch(here).where(workspaces.c.id == number)
    return _workspace(here.connection.execute(made).one())


def delete(here: Configurations, workspace_id: int) -> None:
    """Strike a workspace off the record."""
    if workspace_id not in {each.id for each in all_workspaces(here)}:
        raise NotFound(
            f"Workspace {workspace_id} not found", kind="workspace", id=str(workspace_id)
        )
    here.connection.execute(workspaces.delete().where(workspaces.c.id == workspace_id))


def _of_branch(here: Configurations) -> sa.Select[Any]:
    return _FOUND.join(
        configurations, configurations.c.key == workspaces.c.configuration_key
    ).where(workspaces.c.branch_id == here.branch)


def _workspace(row: Any) -> Workspace:
    return Workspace(
        id=row.id,
        component_id=row.component_id,
        config_id=row.config_id,
        is_read_only=row.is_read_only,
        created=row.created,
        creator_token_id=row.creator_id,
        creator_token_description=row.creator_description,
    )

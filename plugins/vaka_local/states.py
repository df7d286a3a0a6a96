"""States of configurations and rows, within one transaction.

Those of the default branch are in the heads, those of development branches in a table of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa

from vaka.errors import Conflict
from vaka.models.catalog import Configuration, State
from vaka_local.configurations import Configurations
from vaka_local.database import branch_states, configuration_rows, configurations, state_keys
from vaka_local.jsontext import from_text, to_text

_KEYS_KEPT: Final = timedelta(days=30)
"""Age at which keys of states are forgotten. A job that was interrupted is resumed much sooner."""

# Of what every job asks and writes: made once, because making a statement costs as much as running it.
_OF_STATE = (
    state_keys.c.configuration_key == sa.bindparam("configuration_key"),
    state_keys.c.row_id == sa.bindparam("row_id"),
)
_STATE_KEY = sa.select(state_keys.c.key).where(*_OF_STATE, state_keys.c.key == sa.bindparam("key"))
_DELETE_STATE_KEYS = state_keys.delete().where(
    *_OF_STATE, state_keys.c.written < sa.bindparam("oldest")
)
_INSERT_STATE_KEY = state_keys.insert()


def state(here: Configurations, component_id: str, config_id: str, row_id: str | None) -> State:
    """The state of a configuration or of a row."""
    return _state_of(here, here.head(component_id, config_id), row_id)


def _state_of(here: Configurations, head: Any, row_id: str | None) -> State:
    owner = head if row_id is None else here.row_head(head.key, row_id)
    if here.development is not None:
        of_this = here.state_in_branch(head.key, row_id)
        owner = here.connection.execute(sa.select(branch_states).where(of_this)).first()
        if owner is None:
            return State({}, 0)
    return State(from_text(owner.state), owner.state_version)


def states(
    here: Configurations, found: Sequence[Configuration]
) -> dict[tuple[str, str, str | None], State]:
    """The states of configurations and their rows, by component, configuration and row."""
    if not found:
        return {}
    component_ids = {each.component_id for each in found}
    keys = here.keys(
        component_ids.pop() if len(component_ids) == 1 else None, is_deleted=found[0].is_deleted
    )
    head, row, own = configurations.c, configuration_rows.c, branch_states.c
    of_head: sa.ColumnElement[bool] = head.key.in_(keys)
    if len(found) == 1:
        of_head = sa.and_(of_head, head.id == found[0].id)
    if here.development is None:
        statements = [
            sa.select(head.component_id, head.id, sa.null(), head.state, head.state_version).where(
                of_head
            ),
            sa.select(head.component_id, head.id, row.id, row.state, row.state_version)
            .join(configuration_rows, row.configuration_key == head.key)
            .where(of_head, row.is_deleted.is_(False)),
        ]
    else:
        statements = [
            sa.select(head.component_id, head.id, own.row_id, own.state, own.state_version)
            .join(branch_states, own.configuration_key == head.key)
            .where(of_head, own.branch_id == here.development)
        ]
    kept = {
        (component, config, row_id or None): State(from_text(state), version)
        for statement in statements
        for component, config, row_id, state, version in here.connection.execute(statement)
    }
    return {
        (each.component_id, each.id, row): kept.get((each.component_id, each.id, row), State({}, 0))
        for each in found
        for row in (None, *(row.id for row in each.rows))
    }


def put(
    here: Configurations,
    component_id: str,
    config_id: str,
    row_id: str | None,
    value: Any,
    expected_version: int | None,
    key: str | None,
) -> State:
    """Replace a state, once for each `key`, and only when it has the version expected."""
    text = to_text(value, "state")
    head = here.head(component_id, config_id)
    before = _state_of(here, head, row_id)
    of_this = {"configuration_key": head.key, "row_id": row_id or ""}
    if key is not None:
        done = here.connection.execute(_STATE_KEY, {"key": key} | of_this)
        if done.first() is not None:
            return before
    if expected_version is not None and expected_version != before.version:
        raise Conflict(
            f"The state of configuration {config_id} has version {before.version}, not "
            f"{expected_version}: another job has stored one meanwhile."
        )
    here.write_state(head, row_id, text, before.version + 1)
    if key is not None:
        here.connection.execute(
            _DELETE_STATE_KEYS, {"oldest": here.author.now - _KEYS_KEPT} | of_this
        )
        here.connection.execute(
            _INSERT_STATE_KEY, {"key": key, "written": here.author.now} | of_this
        )
    return State(from_text(text), before.version + 1)
